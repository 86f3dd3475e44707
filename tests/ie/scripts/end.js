/* After scripts that wait for nothing. */
exit(0);
