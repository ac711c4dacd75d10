//! Jobs that need a version: held, let go, and held again.

use super::*;

/// Rule 10: by the order in which versions were first accepted, not by their labels; and there and back.
#[test]
fn a_job_that_needs_a_version_waits_aside_until_work_goes_to_one_that_came_no_earlier() {
    let mut life = Life::new();
    let counts = |life: &Life| {
        let of_type = life.table.worker_type(1).unwrap();
        (of_type.queue.len(), of_type.held())
    };
    let v10 = life.accept(1, "v10");
    let v2 = life.accept(1, "v2");
    life.route(1, v10);
    for needs in ["v10", "v2", "v3"] {
        life.needs = Some(needs);
        life.enqueue(1, 5, 0, 0, false);
    }
    life.needs = None;
    life.enqueue(1, 5, 0, 0, false);
    let [first, second, third, plain] = life.live()[..] else { panic!("four jobs") };
    assert_eq!(counts(&life), (2, 2), "v2 came after v10, and nobody knows a v3");
    assert_eq!(life.table.worker_type(1).unwrap().held_for(v2).collect::<Vec<_>>(), [second]);
    assert_eq!(life.table.worker_type(1).unwrap().held_for(v10).count(), 0);
    let job = |life: &Life, born| life.table.job(born).unwrap();
    assert!(life.table.may_run(&job(&life, second), v2) && !life.table.may_run(&job(&life, second), v10));
    assert_eq!((life.table.is_held(&job(&life, second)), life.table.is_held(&job(&life, first))), (true, false));

    life.route(1, v2);
    assert_eq!(counts(&life), (3, 1));
    // A label of another type is another label.
    life.accept(2, "v3");
    let v3 = life.accept(1, "v3");
    assert_eq!(counts(&life), (3, 1));
    assert_eq!(life.table.worker_type(1).unwrap().held_for(v3).collect::<Vec<_>>(), [third]);
    life.route(1, v3);
    assert_eq!(counts(&life), (4, 0));

    // Back: what was given out comes home to where it must wait.
    let reserved = Reserved { born: second, fence: Fence { epoch: 1, counter: 1 }, version_no: v3, at: life.now };
    life.put(&Event::Reserved(reserved)).unwrap();
    life.route(1, v10);
    assert_eq!(counts(&life), (2, 1));
    life.put(&Event::Released(Released { born: second, at: life.now, release: Release::Interrupt, worker: 0 }, b""))
        .unwrap();
    assert_eq!(counts(&life), (2, 2));
    life.route(1, 0);
    assert_eq!(counts(&life), (1, 3), "to none: what needs a version is held, what needs none waits");
    assert_eq!(served_and_held(&mut life.table, 1, 1_000), (vec![plain], vec![first, second, third]));
}

#[test]
fn what_is_held_can_be_cancelled_expires_and_is_given_all_attempts_again() {
    let mut life = Life::new();
    let v1 = life.accept(1, "v1");
    life.route(1, v1);
    life.needs = Some("v2");
    (0..3).for_each(|_| life.enqueue(1, 5, 0, 0, false));
    life.enqueue(1, 5, 0, 5_000, false);
    let held = |life: &Life| life.table.worker_type(1).unwrap().held();
    let live = life.live();
    assert_eq!((held(&life), life.table.expired(life.now + 5_000)), (4, Some(live[3])));
    life.try_change(live[0], 8, 0);
    life.try_change(live[1], 4, 0);
    assert_eq!((held(&life), life.table.dead_jobs()), (2, 1));
    life.try_change(live[1], 7, 0);
    assert_eq!((held(&life), life.table.dead_jobs()), (3, 0));
    let v2 = life.accept(1, "v2");
    life.route(1, v2);
    assert_eq!((held(&life), life.table.worker_type(1).unwrap().queue.len()), (0, 3));
}

/// The number of a version is kept with the job once its own record may leave the log.
#[test]
fn what_a_job_needs_is_known_when_the_versions_record_has_left_the_log() {
    let mut life = Life::new();
    life.needs = Some("v2");
    life.enqueue(1, 5, 0, 0, false);
    let born = life.live()[0];
    let v2 = life.accept(1, "v2");
    let later = life.accept(1, "v3");
    life.route(1, later);
    let head = life.restate_all();
    let numbers = |table: &Table| table.job(born).unwrap().min_version().unwrap().version_no;
    assert_eq!(numbers(&life.table), v2);
    let mut records = life.log.0[head..].to_vec();
    records.retain(|(_, kind, version, body)| match Event::decode(*kind, *version, body).unwrap() {
        Event::VersionAccepted(event) => event.label != "v2",
        _ => true,
    });
    let mut again = replay(&records, life.now);
    assert_eq!((numbers(&again), served_and_held(&mut again, 1, 1_000)), (v2, (vec![born], vec![])));
}
