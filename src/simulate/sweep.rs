//! All small workloads, each at every place, on every core.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::every_call;
use super::figures::Figures;
use super::images::{self, ImageCounts};
use super::workloads::{self, Workload};
use crate::worker::native::panic_text;

/// Opens every image that a power cut may leave of every small workload. `progress` is called after each workload.
///
/// # Errors
/// The workload, the image, and what does not hold.
pub fn crash_images(threads: usize, progress: &(dyn Fn(u64) + Sync)) -> Result<ImageCounts, String> {
    let mut counts = ImageCounts::default();
    for more in each(threads, progress, images::enumerate)? {
        counts.add(more);
    }
    Ok(counts)
}

/// Fails every call of the disk in every small workload, once and for ever. `progress` is called after each workload.
///
/// # Errors
/// The workload, the call, and what does not hold.
pub fn failed_calls(threads: usize, progress: &(dyn Fn(u64) + Sync)) -> Result<Figures, String> {
    let mut figures = Figures::default();
    for more in each(threads, progress, every_call::fail_each)? {
        figures.absorb(&more);
    }
    Ok(figures)
}

/// How many small workloads there are.
pub fn workload_count() -> u64 {
    workloads::all().len() as u64
}

fn each<T: Send>(
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
    then: impl Fn(&Workload) -> Result<T, String> + Sync,
) -> Result<Vec<T>, String> {
    let mut all = workloads::all();
    // The longest ones are last in the list, and are begun first.
    all.reverse();
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Result<T, String>>> = Mutex::default();
    let work = || {
        while let Some(workload) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let one = catch_unwind(AssertUnwindSafe(|| then(workload)))
                .unwrap_or_else(|panic| Err(format!("panic: {}", panic_text(panic.as_ref()))))
                .map_err(|what| format!("{}: {what}", workload.name));
            if one.is_err() {
                next.store(all.len(), Ordering::Relaxed);
            }
            done.lock().unwrap_or_else(PoisonError::into_inner).push(one);
            progress(1);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
}
