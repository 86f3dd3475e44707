//! Everything that can break breaks, in random order, while pages read and applications write: nothing is lost.
//!
//! The judge is `everpoll verify`'s own: what users can check is what is checked here. In between stand real servers, and a
//! cable between each two of them.
//!
//! What a newcomer gets wrong: requests may fail here, and publishers may be told that nobody knows. What must not happen is
//! that an event that was acknowledged is missing, comes twice, or comes out of order.

/// All that runs, and how it is broken.
mod stage;

use std::time::Duration;

use everpoll_tests::Database;
use everpoll_tests::database::Postgres;
use everpoll_verify::{Cause, Plan, Report, Stop, Transport, run};

use stage::Stage;

/// How long the short form publishes, and the whole.
const SHORT: Duration = Duration::from_secs(180);
const LONG: Duration = Duration::from_secs(30 * 60);

#[test]
fn nothing_is_lost_while_everything_breaks() {
    let long = std::env::var_os("EVERPOLL_TEST_LONG").is_some();
    let postgres = Postgres::start();
    let database = postgres.create_database();
    database.migrate();
    let stage = Stage::start(postgres, &database);
    let mut plan = plan(&stage, &database);
    plan.duration = if long { LONG } else { SHORT };
    plan.faults = stage.faults();
    let report =
        run(plan, &Stop::default(), |_| {}).unwrap_or_else(|error| panic!("{error}\n{}", stage.logs()));
    eprintln!("{report}");
    // Who was told nothing must not be the rule, or nothing was shown.
    assert!(report.total.acknowledged > report.total.unknown * 20, "{report}");
    assert!(struck(&report) > 20, "{report}");
    assert!(report.kept, "{report}\n{}", stage.logs());
    assert_eq!(report.fault_errors, Vec::<String>::new());
}

fn plan(stage: &Stage, database: &Database) -> Plan {
    let mut plan = Plan::new(stage.pages().parse().expect("an address"));
    plan.database = Some(stage.database_url(database));
    plan.redis = Some(stage.redis_url());
    plan.causes = vec![Cause::Http, Cause::Sql];
    plan.rate = 200.0;
    plan.channels = 50;
    plan.channels_per_client = 1;
    plan.clients = 500;
    plan.transports = [&Transport::ALL[..], &[Transport::Random]].concat();
    plan.hold = Duration::from_secs(8);
    plan.calm = Duration::from_secs(3);
    plan.settle = Duration::from_secs(120);
    // How late events are is shown; the machine may be busy with other tests.
    plan.late_max = Duration::from_secs(90);
    plan.seed = crate::writers::Random::seeded().below(u64::MAX);
    plan
}

fn struck(report: &Report) -> u32 {
    report.groups.iter().map(|group| group.struck).sum()
}
