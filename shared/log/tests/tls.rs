//! TLS to PostgreSQL: what each `sslmode` does against a server whose certificate nobody knows.

use everpoll_log::{Log, LogError, Options};
use everpoll_tests::{Database, Postgres, TestDir};

/// Run by the server in its own directory: an authority, and a certificate for 127.0.0.1 from it.
const CERTIFICATES: &str = "
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt &&
    openssl req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr &&
    echo subjectAltName=IP:127.0.0.1 > server.ext &&
    openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out server.crt &&
    chmod 600 server.key";

fn connect(database: &Database, options: &str) -> Result<Log, LogError> {
    let mut log = Log::new(&format!("{}?{options}", database.url()), Options::default())?;
    log.bounds()?;
    Ok(log)
}

/// Whether the log's only connection is encrypted.
fn encrypted(database: &Database) -> bool {
    let sql =
        "select ssl from pg_stat_ssl join pg_stat_activity using (pid) where application_name = 'everpoll'";
    database.psql(sql) == "t\n"
}

#[test]
fn connection_is_encrypted_and_verified_as_sslmode_says() {
    let server = Postgres::start();
    let database = server.create_database();
    Log::new(&database.url(), Options::default()).unwrap().migrate().unwrap();
    let plain = connect(&database, "sslmode=require").unwrap_err();
    assert!(plain.to_string().contains("cannot be reached"), "{plain}");

    let script = CERTIFICATES.replace('\n', " ");
    database.psql(&format!("copy (select 1) to program $$({script}) >/dev/null 2>&1$$"));
    let authority = database.psql("select pg_read_file('ca.crt')");
    server.psql("alter system set ssl = on");
    server.stop_fast();
    server.start_again();
    let directory = TestDir::new();
    let authority = directory.file("ca.crt", authority);

    for (options, expected) in [
        ("sslmode=disable", false),
        ("application_name=everpoll", true),
        ("sslmode=prefer", true),
        ("sslmode=require", true),
        (&*format!("sslmode=verify-full&sslrootcert={}", authority.display()), true),
    ] {
        let log = connect(&database, options).unwrap();
        assert_eq!(encrypted(&database), expected, "{options}");
        drop(log);
        let count = "select count(*) from pg_stat_activity where application_name = 'everpoll'";
        everpoll_tests::wait::until("it has gone", std::time::Duration::from_secs(5), || {
            database.psql(count) == "0\n"
        });
    }
    let unknown = connect(&database, "sslmode=verify-full").unwrap_err();
    assert!(unknown.to_string().contains("certificate"), "{unknown}");
    let missing = connect(&database, "sslmode=verify-full&sslrootcert=/missing.crt").unwrap_err();
    assert!(
        matches!(&missing, LogError::Settings { detail } if detail.contains("/missing.crt")),
        "{missing:?}"
    );
}
