// What a test script and the Rust test that started it have to say to each other; see tests/harness/script.rs.

/** What the Rust test told this script. */
export const site = JSON.parse(process.env.SITE ?? '{}');

/** Who waits for an answer: answers come in the order of the questions. */
const waiting = [];
let unfinished = '';

process.stdin.setEncoding('utf8');
process.stdin.on('data', (text) => {
    const lines = (unfinished + text).split('\n');
    unfinished = lines.pop();
    for (const line of lines) waiting.shift()?.(line);
    // An idle stdin must not keep a script alive that has done its work.
    if (waiting.length === 0) process.stdin.unref?.();
});
// Without a test around it stdin may be a file, which keeps nobody waiting.
process.stdin.unref?.();

/** Asks the Rust test to do something, such as `restart daemon`, and resolves to its answer when that is done. */
export function ask(command) {
    return new Promise((resolve) => {
        waiting.push(resolve);
        process.stdin.ref?.();
        process.stdout.write(`@${command}\n`);
    });
}

/** Writes a line into the script's log. */
export function log(...words) {
    console.log(...words);
}
