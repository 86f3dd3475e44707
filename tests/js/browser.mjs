// Starts Chromium and Firefox as they come from the distribution, headless, and hands them to puppeteer.
//
// They are started here and not by puppeteer, which would give them a process group of their own: so they end with the
// script, however that ends. Their profiles lie in the script's own TMPDIR.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import puppeteer from 'puppeteer-core';

import { until } from './until.mjs';

/** How long a browser may take to do one thing; its script's own limit comes first, mostly. */
const ANSWER_MS = 280_000;

/**
 * Starts a browser, 'chromium' or 'firefox', and connects to it.
 *
 * `options.flags` are further flags of Chromium, `options.preferences` further preferences of Firefox.
 */
export async function launch(name, options = {}) {
    const profile = mkdtempSync(join(tmpdir(), `${name}-`));
    const start = { chromium, firefox }[name];
    if (!start) throw new Error(`there is no browser ${name}; chromium and firefox are known`);
    return start(profile, options);
}

async function chromium(profile, { flags = [] }) {
    const child = spawnLogged('chromium', [
        '--headless=new',
        `--user-data-dir=${profile}`,
        '--remote-debugging-port=0',
        // Tests run as root in containers, where its sandbox cannot be made; the pages are our own.
        '--no-sandbox',
        // The shared memory of containers is too small for it.
        '--disable-dev-shm-usage',
        '--disable-gpu',
        '--no-first-run',
        '--no-default-browser-check',
        // No word to its maker's hosts.
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        '--disable-extensions',
        '--password-store=basic',
        ...flags,
        'about:blank',
    ]);
    const file = join(profile, 'DevToolsActivePort');
    const [port, path] = await until('Chromium listens for its driver', () => {
        if (child.exitCode !== null) throw new Error(`chromium ended with ${child.exitCode}:\n${child.output}`);
        try {
            const lines = readFileSync(file, 'utf8').split('\n');
            return lines.length > 1 && lines;
        } catch {
            return false;
        }
    });
    const browser = await puppeteer.connect({
        browserWSEndpoint: `ws://127.0.0.1:${port}${path}`,
        defaultViewport: null,
        protocolTimeout: ANSWER_MS,
    });
    return withEnd(browser, child);
}

async function firefox(profile, { preferences = {} }) {
    const all = {
        // No pages, questions and words to its maker's hosts of its own accord.
        'app.normandy.enabled': false,
        'app.update.enabled': false,
        'browser.shell.checkDefaultBrowser': false,
        'browser.startup.homepage_override.mstone': 'ignore',
        'browser.startup.page': 0,
        'browser.tabs.warnOnClose': false,
        'datareporting.policy.dataSubmissionEnabled': false,
        'extensions.update.enabled': false,
        'network.captive-portal-service.enabled': false,
        'network.connectivity-service.enabled': false,
        'toolkit.telemetry.reportingpolicy.firstRun': false,
        'network.proxy.type': 0,
        // An invalid certificate or a missing host must not be looked up anywhere.
        'services.settings.server': 'data:,',
        ...preferences,
    };
    const lines = Object.entries(all).map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`);
    writeFileSync(join(profile, 'user.js'), lines.join(''));
    const child = spawnLogged('firefox-esr', ['--headless', '--no-remote', '--profile', profile, '--remote-debugging-port=0']);
    const address = await until('Firefox listens for its driver', () => {
        if (child.exitCode !== null) throw new Error(`firefox ended with ${child.exitCode}:\n${child.output}`);
        return child.output.match(/WebDriver BiDi listening on (ws:\S+)/)?.[1];
    });
    const browser = await puppeteer.connect({
        browserWSEndpoint: `${address}/session`,
        protocol: 'webDriverBiDi',
        defaultViewport: null,
        protocolTimeout: ANSWER_MS,
    });
    return withEnd(browser, child);
}

function spawnLogged(program, flags) {
    const child = spawn(program, flags, { stdio: ['ignore', 'pipe', 'pipe'] });
    child.output = '';
    const keep = (text) => {
        child.output = (child.output + text).slice(-20000);
    };
    child.stdout.setEncoding('utf8').on('data', keep);
    child.stderr.setEncoding('utf8').on('data', keep);
    child.on('error', (error) => keep(`cannot start ${program}: ${error.message}`));
    return child;
}

/** `browser.end()` closes it at once, with all pages: as when its process is killed. */
function withEnd(browser, child) {
    browser.end = async () => {
        const ended = child.exitCode !== null || new Promise((resolve) => child.once('exit', resolve));
        await browser.disconnect();
        child.kill('SIGKILL');
        await ended;
    };
    return browser;
}
