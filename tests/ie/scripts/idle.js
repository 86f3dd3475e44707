/* Waits for ever: Wine's services live as long as the first program that runs. */
print('idle');
