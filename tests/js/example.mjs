// The shortest script: what tests/harness/script.rs tests itself with.

import { ask, log, site } from './site.mjs';

const [first, second] = await Promise.all([ask('make some cheese'), ask('and more')]);
log(`${site.name}: ${first}, ${second}`);
