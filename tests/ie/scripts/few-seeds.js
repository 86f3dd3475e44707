/* The client's own tests play random schedules, which takes these engines long: a few of them here, many in node. */
var seeds = 2;
