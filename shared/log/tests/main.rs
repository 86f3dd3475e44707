//! The log against real databases: a PostgreSQL server that the tests start, and SQLite files.
//!
//! What both promise is tested on both by the same body; the macro below makes two tests of each.

mod common;
mod publish;
mod read;

/// Makes a module of tests per database out of functions that take a [`common::Store`].
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod postgres {
            $(#[test] fn $name() { super::$name(&crate::common::Store::postgres()); })+
        }
        mod sqlite {
            $(#[test] fn $name() { super::$name(&crate::common::Store::sqlite()); })+
        }
    };
}
use on_both;
