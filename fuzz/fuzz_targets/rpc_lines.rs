//! What a program that stays may write: any bytes, in any pieces, make the same of its jobs; each of them is answered at
//! most once, and the first violation is the last word.
#![no_main]

mod bounded;

use biotope::worker::told;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((first, said)) = data.split_first() else { return };
    let whole = told(&[said]);
    let even: Vec<&[u8]> = said.chunks(usize::from(*first) + 1).collect();
    assert_eq!(told(&even), whole, "it matters where the pieces end");
    let (front, back) = said.split_at(said.len() * usize::from(*first) / 256);
    assert_eq!(told(&[front, &[], back]), whole, "it matters where the pieces end");
});
