/* The command line, the message loop, and how it ends. */
#include "host.h"

#include <fcntl.h>
#include <io.h>
#include <stdio.h>
#include <stdlib.h>

static const char usage[] =
    "usage: iehost -v VERSION [-t SECONDS] SCRIPT... [-- NAME=VALUE...]\n"
    "\n"
    "Runs the scripts, one after the other in one global scope, and then what they wait for, until one calls exit(code).\n"
    "\n"
    "  -v VERSION   the language: 1 = JScript 5.7 (Internet Explorer 6 and 7), 2 = 5.8 (8), 1282 = ECMAScript 5 (9 to 11)\n"
    "  -t SECONDS   ends with 4 when it still runs after this time (default: no limit)\n"
    "  NAME=VALUE   what argument('NAME') gives to the scripts\n"
    "\n"
    "Exit codes: exit's own; 2 usage or unreadable script; 3 error in a script; 4 time limit; 5 crash; 6 no script\n"
    "engine\n";

static BOOL ended;
static int end_code;

static WCHAR **pairs;
static int pair_count;

void end(int code)
{
    if (!ended) {
        ended = TRUE;
        end_code = code;
        PostQuitMessage(code);
    }
}

BOOL has_ended(void)
{
    return ended;
}

void write_line(const WCHAR *text)
{
    int size = WideCharToMultiByte(CP_UTF8, 0, text, -1, NULL, 0, NULL, NULL);
    char *line = size > 0 ? malloc(size + 1) : NULL;
    if (!line)
        return;
    WideCharToMultiByte(CP_UTF8, 0, text, -1, line, size, NULL, NULL);
    /* In place of the final 0. One write for the whole line: others may write to the same file. */
    line[size - 1] = '\n';
    fwrite(line, 1, size, stdout);
    fflush(stdout);
    free(line);
}

const WCHAR *given(const WCHAR *name)
{
    size_t length = wcslen(name);
    for (int index = 0; index < pair_count; index++) {
        if (!wcsncmp(pairs[index], name, length) && pairs[index][length] == L'=')
            return pairs[index] + length + 1;
    }
    return NULL;
}

static int fail(const char *problem)
{
    fprintf(stderr, "iehost: %s\n\n%s", problem, usage);
    return EXIT_USAGE;
}

/* The number in `text`; -1 when it is none. */
static long number(const WCHAR *text)
{
    WCHAR *rest;
    long value = wcstol(text, &rest, 10);
    return *text && !*rest && value >= 0 ? value : -1;
}

static void CALLBACK time_is_up(HWND none, UINT message, UINT_PTR id, DWORD time)
{
    write_line(L"iehost: the time limit is reached");
    end(EXIT_TIME_LIMIT);
}

static void run_messages(void)
{
    MSG message;
    while (!ended && GetMessageW(&message, NULL, 0, 0) > 0) {
        TranslateMessage(&message);
        DispatchMessageW(&message);
    }
}

int wmain(int count, WCHAR **arguments)
{
    long version = -1, seconds = 0;
    int index = 1, first, last;

    for (; index < count && arguments[index][0] == L'-' && wcscmp(arguments[index], L"--"); index += 2) {
        const WCHAR *value = index + 1 < count ? arguments[index + 1] : L"";
        if (!wcscmp(arguments[index], L"-v")) {
            version = number(value);
        } else if (!wcscmp(arguments[index], L"-t")) {
            if ((seconds = number(value)) <= 0)
                return fail("-t takes a number of seconds, such as -t 60");
        } else {
            return fail("there is no such option");
        }
    }
    if (version < 0)
        return fail("say which version of the language, such as -v 1");
    for (first = last = index; last < count && wcscmp(arguments[last], L"--"); last++)
        ;
    if (first == last)
        return fail("no script is given");
    if (last < count) {
        pairs = arguments + last + 1;
        pair_count = count - last - 1;
    }
    for (int pair = 0; pair < pair_count; pair++) {
        if (!wcschr(pairs[pair], L'='))
            return fail("what follows -- has the form NAME=VALUE");
    }

    /* Line ends are Unix' for whoever reads us. */
    _setmode(_fileno(stdout), _O_BINARY);
    /* Requests call back on the thread that runs scripts, as in a browser. */
    CoInitializeEx(NULL, COINIT_APARTMENTTHREADED);
    HRESULT started = engine_start(version);
    if (FAILED(started)) {
        fprintf(stderr, "iehost: no JScript engine of version %ld (0x%08lx)\n", version, started);
        return EXIT_NO_ENGINE;
    }
    if (seconds)
        SetTimer(NULL, 0, seconds * 1000, time_is_up);
    for (index = first; index < last; index++) {
        if (!engine_run(arguments[index]))
            break;
    }
    run_messages();
    fflush(stdout);
    /* Without taking down the engine: requests that are still out would call back into it. */
    ExitProcess(end_code);
}
