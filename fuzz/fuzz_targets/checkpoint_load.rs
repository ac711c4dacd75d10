//! Blocks of checkpoints, of the table and of the index of names, out of any bytes: refused or taken over, without a panic,
//! and what was taken over is written and read again to the same. Waiting jobs are not looked into: their checksum was.
#![no_main]

mod bounded;

use biotope::job::ids::{IdIndex, IdMaker};
use biotope::job::table::Table;
use libfuzzer_sys::fuzz_target;

const LOG_ID: [u8; 16] = [7; 16];

fuzz_target!(|data: &[u8]| {
    let Some((sort, data)) = data.split_first() else { return };
    if sort % 2 == 0 { table(data) } else { names(data) }
});

/// Blocks one after the other, each behind its length, as a file has them.
fn blocks(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (bytes, rest) = data.split_first_chunk::<2>()?;
        let (block, rest) = rest.split_at(usize::from(u16::from_le_bytes(*bytes)).min(rest.len()));
        data = rest;
        Some(block)
    })
}

fn table(data: &[u8]) {
    let mut table = Table::to_replay(LOG_ID);
    if blocks(data).any(|block| table.load(block).is_err()) {
        return;
    }
    let mut again = Table::to_replay(LOG_ID);
    let written: Vec<Vec<u8>> = table.picture().blocks().collect();
    for block in &written {
        again.load(block).expect("what was written can be read");
    }
    assert_eq!(again.live_jobs(), table.live_jobs());
    assert!(again.picture().blocks().eq(written), "another checkpoint came out");
}

fn names(data: &[u8]) {
    let mut index = IdIndex::new(IdMaker::new(LOG_ID));
    if blocks(data).any(|block| index.load(block).is_none()) {
        return;
    }
    let mut again = IdIndex::new(IdMaker::new(LOG_ID));
    let written = written(&index);
    for block in &written {
        again.load(block).expect("what was written can be read");
    }
    assert_eq!(self::written(&again), written, "another index came out");
    // Where a name may stand is looked for as long as there are slots, and no longer.
    for (type_no, name) in [(1, "a"), (2, "order-17")] {
        assert_eq!(index.by_id(type_no, name), again.by_id(type_no, name));
        assert_eq!(index.by_key(type_no, name), again.by_key(type_no, name));
    }
}

fn written(index: &IdIndex) -> Vec<Vec<u8>> {
    let mut part = 0;
    std::iter::from_fn(|| {
        let (block, next) = index.block(part, 1 << 16)?;
        part = next;
        Some(block)
    })
    .collect()
}
