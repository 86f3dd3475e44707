/* iehost: Windows' JScript engine with the few things of Internet Explorer that a script without a page needs.
 *
 * The engine comes from jscript.dll and the requests from msxml and WinInet, as in Internet Explorer; under Wine these
 * are Wine's own. Around them are a message loop, timers and a way to print, here:
 *
 *     main.c     the command line, the message loop, how it ends
 *     engine.c   the script engine: its version, loading files, errors
 *     globals.c  what scripts see as globals: setTimeout, print, exit, argument …
 *     timer.c    timers
 */
#ifndef IEHOST_H
#define IEHOST_H

#define COBJMACROS
/* A fifth of the headers, which take most of the compiler's time. */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#include <activscp.h>

/* How the program ends. A script's own exit(code) is passed on. 5 is not ours: Wine ends a program that crashed with it. */
enum exit_code {
    EXIT_DONE = 0,
    EXIT_USAGE = 2,
    EXIT_SCRIPT_ERROR = 3,
    EXIT_TIME_LIMIT = 4,
    EXIT_NO_ENGINE = 6,
};

/* main.c */

/* Ends the message loop. The first call decides about the code: what fails while all is taken down is not the cause. */
void end(int code);
BOOL has_ended(void);
/* Writes a line of UTF-8 to stdout, at once: a test looks for it while we run. */
void write_line(const WCHAR *text);
/* What stood behind `--` as name=value on the command line; NULL when it was not given. */
const WCHAR *given(const WCHAR *name);

/* engine.c */

HRESULT engine_start(LONG version);
/* Runs a file; FALSE when it cannot be read or has failed, which was reported. */
BOOL engine_run(const WCHAR *path);
/* Calls a function of the script without arguments. */
void engine_call(IDispatch *function);

/* globals.c */

/* The object whose members are the scripts' globals. */
IDispatch *globals(void);

/* timer.c */

/* Calls `function` after `milliseconds`, again and again if it `repeats`. Returns the timer's number, 0 when out of memory. */
LONG timer_set(IDispatch *function, LONG milliseconds, BOOL repeats);
/* Nothing happens when there is no such timer: it may have fired just now. */
void timer_clear(LONG number);

#endif
