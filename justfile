# `just --list` shows these. Each is one command; all of them run without just as well.

# Runs what must hold before a change goes in: format, lints, documentation, tests.
check:
    .ci/run

# Runs all tests, or those whose name contains the argument.
test *arguments:
    tests/run {{arguments}}

# Measures, and prints a table for this machine.
bench *arguments:
    cargo run --release -p everpoll-tests --bin bench -- {{arguments}}

# Starts daemon, fallback and, where it is installed, nginx, to try things out.
up *arguments:
    cargo run --release -- up {{arguments}}
