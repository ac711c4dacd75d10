//! The example shop: ten thousand orders through all four worker types, with a rollover in the middle.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::wait::now;
use crate::support::{Biotope, Home, LATER, repository, shown, tell};

/// Enqueues orders number `from` (counted from 0) up to `to` by the command line.
fn push(home: &Home, orders: &[&str], from: usize, to: usize) {
    home.write("part.ndjson", &(orders[from..to].join("\n") + "\n"));
    let output = home.cli(&["push", "--file", home.path("part.ndjson").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), to - from);
}

/// All jobs of a type, each completed, and each with the id that `prefix` and an order's number make.
fn completed(biotope: &Biotope<'_>, worker_type: &str, prefix: &str, orders: usize) -> Vec<Value> {
    let jobs = biotope.jobs(&format!("type={worker_type}&limit=10000"));
    assert_eq!(jobs.len(), orders, "{worker_type}");
    let ids: BTreeSet<_> = jobs.iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
    let expected: BTreeSet<_> = (1..=orders).map(|number| format!("{prefix}order-{number:05}")).collect();
    assert!(ids == expected, "{worker_type}: other jobs than one for each order");
    for job in &jobs {
        assert_eq!(job["state"], "completed", "{job}");
    }
    jobs
}

fn sum(jobs: &[Value], member: &str) -> u64 {
    jobs.iter().map(|job| job["result"][member].as_u64().unwrap()).sum()
}

#[test]
fn every_order_is_processed_exactly_once_over_a_rollover() {
    let text = std::fs::read_to_string(repository().join("examples/shop/orders.ndjson")).unwrap();
    let orders: Vec<&str> = text.lines().collect();
    assert_eq!(orders.len(), 10_000);
    let home = Home::example("shop", "biotope.toml");
    let biotope = home.start();
    let began = now();
    push(&home, &orders, 0, 5000);
    biotope.until_count_in("order-processor", "completed", 1000, LATER);
    home.use_config("biotope-v2.toml");
    biotope.signal(Signal::HUP);
    push(&home, &orders, 5000, 9000);
    biotope.until_version("order-processor", "v2", "current");
    push(&home, &orders, 9000, 10_000);
    for worker_type in ["order-processor", "payment-processor", "inventory-sync", "notification-sender"] {
        biotope.until_count_in(worker_type, "completed", 10_000, LATER);
    }
    tell(&format!("10,000 orders, 40,000 jobs in {:.1?}", now() - began));
    check(&biotope, &orders);

    // All orders once more: each is known, nothing runs again.
    push(&home, &orders, 0, 10_000);
    check(&biotope, &orders);
    biotope.stop();
}

fn check(biotope: &Biotope<'_>, orders: &[&str]) {
    let (mut cents, mut units) = (0, 0);
    for order in orders {
        let order: Value = serde_json::from_str(order).unwrap();
        for line in order["payload"]["lines"].as_array().unwrap() {
            let of_line = line["units"].as_u64().unwrap();
            units += of_line;
            cents += of_line * line["cents"].as_u64().unwrap();
        }
    }
    let processed = completed(biotope, "order-processor", "", orders.len());
    assert_eq!(sum(&processed, "cents"), cents);
    for version in ["v1", "v2"] {
        let count = processed.iter().filter(|job| job["version"] == version).count();
        assert!(count >= 1000, "{version} processed {count}");
        let with_points = processed.iter().filter(|job| job["version"] == version && job["result"]["points"].is_u64());
        assert_eq!(with_points.count(), if version == "v2" { count } else { 0 }, "only v2 grants points");
    }
    assert_eq!(sum(&completed(biotope, "payment-processor", "pay-", orders.len()), "charged_cents"), cents);
    assert_eq!(sum(&completed(biotope, "inventory-sync", "stock-", orders.len()), "moved_units"), units);
    completed(biotope, "notification-sender", "mail-", orders.len());

    // Every thousandth payment failed once, and nothing else did.
    for (worker_type, failed) in
        [("order-processor", 0), ("payment-processor", 10), ("inventory-sync", 0), ("notification-sender", 0)]
    {
        let counts = biotope.of_type(worker_type);
        assert_eq!(
            (&counts["enqueued"], &counts["completed"]),
            (&orders.len().into(), &orders.len().into()),
            "{counts}"
        );
        assert_eq!((&counts["failed"], &counts["dead"]), (&failed.into(), &0.into()), "{counts}");
    }
}

#[test]
fn the_orders_are_what_their_generator_makes() {
    let shop = repository().join("examples/shop");
    let output = std::process::Command::new("python3").arg(shop.join("make_orders.py")).output().unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    assert!(output.stdout == std::fs::read(shop.join("orders.ndjson")).unwrap(), "orders.ndjson was changed by hand");
}
