// Compiled, never run: what everpoll.d.ts must allow, and what it must refuse.
import Everpoll = require('../everpoll');

interface Cheeses {
  cheese_created: { name: string };
  cheese_eaten: { id: number };
}

const plain = new Everpoll('cheese');
plain.on('anything', (data, event) => data.whatever + event.id.length).off('anything').stop();

const events = new Everpoll<Cheeses>(['cheese', 'wine'], {
  url: ['https://events.shop.example/e', '/e.php'], transport: 'eventsource', cursor: 434, keep: true,
  parameters: { token: 'x' }, share: false, hold: 20, credentials: true, jsonp: true, waitId: 'me', start: false
});
events.on('cheese_created', (data, event) => {
  const name: string = data.name;
  const type: 'cheese_created' = event.type;
  return name + type;
});
events.on('state', (state, detail) => (state === 'down' ? detail.retryIn : detail.code));
events.on('gap', (gap) => gap.reason === 'trimmed');
events.on('*', (_data, event) => event.ts);
events.start().stop();

const core = new Everpoll.Core('cheese', {}, { send: (_url, done) => (done(0, '', () => ''), () => {}) });
const cursor: string = core.cursor;

// @ts-expect-error a type that does not exist
events.on('cheese_lost', () => {});
// @ts-expect-error no such transport
new Everpoll('cheese', { transport: 'pigeon' });
// @ts-expect-error read only
core.cursor = cursor;
// @ts-expect-error a gap has no type
events.on('gap', (gap) => gap.type);
