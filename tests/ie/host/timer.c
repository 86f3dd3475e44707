/* Timers over the thread's message queue, as in Internet Explorer: they fire while no script runs, one at a time. */
#include "host.h"

#include <stdlib.h>

/* What Internet Explorer makes of a shorter time. */
#define SHORTEST_MS 15

struct timer {
    struct timer *next;
    LONG number;
    UINT_PTR system_id;
    IDispatch *function;
    BOOL repeats;
};

static struct timer *timers;

/* Takes the timer out of the list. The caller frees what is in it. */
static void unlink_timer(struct timer *timer)
{
    struct timer **link = &timers;
    while (*link != timer)
        link = &(*link)->next;
    *link = timer->next;
    KillTimer(NULL, timer->system_id);
}

static void CALLBACK fire(HWND none, UINT message, UINT_PTR system_id, DWORD time)
{
    struct timer *timer = timers;
    while (timer && timer->system_id != system_id)
        timer = timer->next;
    /* A message may have been in the queue already when the script cleared its timer. */
    if (!timer || has_ended())
        return;
    /* The script may clear this timer while it runs, so the function is held by us. */
    IDispatch *function = timer->function;
    IDispatch_AddRef(function);
    if (!timer->repeats)
        timer_clear(timer->number);
    engine_call(function);
    IDispatch_Release(function);
}

LONG timer_set(IDispatch *function, LONG milliseconds, BOOL repeats)
{
    /* Numbers are not used again: a script that clears a timer twice must not hit another one. */
    static LONG last;
    struct timer *timer = malloc(sizeof *timer);
    if (!timer)
        return 0;
    timer->system_id = SetTimer(NULL, 0, milliseconds < SHORTEST_MS ? SHORTEST_MS : milliseconds, fire);
    if (!timer->system_id) {
        free(timer);
        return 0;
    }
    timer->number = ++last;
    timer->function = function;
    IDispatch_AddRef(function);
    timer->repeats = repeats;
    timer->next = timers;
    timers = timer;
    return timer->number;
}

void timer_clear(LONG number)
{
    struct timer *timer = timers;
    while (timer && timer->number != number)
        timer = timer->next;
    if (!timer)
        return;
    unlink_timer(timer);
    IDispatch_Release(timer->function);
    free(timer);
}
