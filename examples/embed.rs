//! A program with a biotope in it: payments that are charged, and receipts that follow them.
//!
//! `cargo run --example embed [DIR]` keeps its log in DIR, by default `embed-data`. Kill it when you like: what was
//! pushed before is there when it is started again.

use std::error::Error;

use biotope::embed;
use biotope::job::new::NewJob;
use biotope::worker::native::{Context, Failure, Natives};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Payment {
    customer: String,
    cents: u64,
}

/// Charges a payment; its receipt is enqueued in one record with its completion, or not at all.
fn charge(payment: Payment, context: &mut Context<'_>) -> Result<u64, Failure> {
    match payment.cents {
        0 => return Err(Failure::cancel("nothing to charge")),
        1_000_000.. => return Err(Failure::dead("nobody has that much")),
        // An error is a failed attempt: the job is tried again, by default up to four times.
        _ if context.attempt() == 1 => return Err("the terminal did not answer".into()),
        _ => {}
    }
    let id = format!("receipt-of-{}", context.id()).parse()?;
    context.enqueue(NewJob { id: Some(id), ..NewJob::json("receipt", &payment)? });
    Ok(payment.cents)
}

/// Writes a receipt.
fn receipt(payment: Payment, _: &mut Context<'_>) -> Result<String, Failure> {
    Ok(format!("{} paid {}.{:02}", payment.customer, payment.cents / 100, payment.cents % 100))
}

const CONFIG: &str = r#"
[workers.payment]
version = "v1"
concurrency = 2
backoff = { first = "100ms", factor = 2, max = "1s" }

[workers.receipt]
version = "v1"
"#;

#[expect(clippy::print_stdout, reason = "a program that prints")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut natives = Natives::new();
    natives.register_fn("payment", "v1", charge)?;
    natives.register_fn("receipt", "v1", receipt)?;
    let dir = std::env::args_os().nth(1).unwrap_or_else(|| "embed-data".into());
    let biotope = embed::open_with(dir, CONFIG, &natives)?;

    let payments = [("ann", 425), ("bob", 0), ("cleo", 199_900), ("dan", 2_000_000)];
    let jobs = payments.map(|(customer, cents)| NewJob::json("payment", &Payment { customer: customer.into(), cents }));
    let pushed = biotope.push_many(jobs.into_iter().collect::<Result<_, _>>()?); // each is on disk now
    for pushed in pushed {
        let payment = biotope.wait(&pushed?.id)?;
        match payment.state {
            "completed" => {
                let receipt = biotope.wait(&format!("receipt-of-{}", payment.id))?;
                println!("{} after {} failed attempt", receipt.read_result::<String>()?, payment.attempts);
            }
            state => println!("{state}: {}", payment.error.unwrap_or_default()),
        }
    }
    biotope.stop_and_wait(); // what runs may finish; the log is sealed
    Ok(())
}
