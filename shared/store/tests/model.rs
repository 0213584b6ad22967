//! Random changes against a plain model in memory, on all three databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod model {
    pub mod check;
    pub mod plain;
}

use model::check::{compare, learn, open, perform};
use model::plain::{Model, Op, ops};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use sql::testing::{ServerKind, TestDb, server_database, sqlite};

fn cases() -> u8 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(12)
}

async fn run(db: &sql::Db, ops: &[Op]) -> Result<(), String> {
    let (writer, reader, _home) = open(db.clone()).await;
    let mut model = Model::default();
    for (step, op) in ops.iter().chain([&Op::Collect]).enumerate() {
        let agreed = async {
            perform(&writer, &mut model, op).await?;
            learn(&reader, &mut model).await?;
            compare(&reader, &model).await
        };
        agreed
            .await
            .map_err(|error| format!("step {step}, {op:?}: {error}"))?;
    }
    Ok(())
}

async fn agrees(make: impl AsyncFn() -> Option<TestDb>) {
    for seed in 0..cases() {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let ops = ops().new_tree(&mut runner).unwrap().current();
        let Some(test) = make().await else { return };
        let db = test.open().await.unwrap();
        let result = run(&db, &ops).await;
        assert_eq!(result, Ok(()), "{}, seed {seed}", test.name);
        db.close().await;
    }
}

#[tokio::test]
async fn random_changes_agree_with_a_plain_model_on_sqlite() {
    agrees(async || Some(sqlite().unwrap())).await;
}

#[tokio::test]
async fn random_changes_agree_with_a_plain_model_on_postgresql() {
    agrees(async || server_database(ServerKind::Postgres).await.unwrap()).await;
}

#[tokio::test]
async fn random_changes_agree_with_a_plain_model_on_mysql() {
    agrees(async || server_database(ServerKind::MySql).await.unwrap()).await;
}
