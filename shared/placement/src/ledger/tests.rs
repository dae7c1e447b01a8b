//! Properties that the model cannot observe: the calls and their times.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::allocator::SlotAllocator;
use crate::policy::{Group, Policy, Tie};

/// Groups named `a`, `b`, ... of these bases and weights.
fn allocator(groups: &[(u32, u32)]) -> SlotAllocator {
    let group = |(name, (base, weight)): (char, &(u32, u32))| Group {
        name: name.to_string().into(),
        node_labels: BTreeMap::from([("group".to_owned(), name.to_string())]),
        base: *base,
        weight: *weight,
        ..Group::default()
    };
    SlotAllocator::new(Policy::new(('a'..).zip(groups).map(group).collect(), Tie::First).unwrap())
}

const DEADLINE: Duration = Duration::from_secs(2);

fn at(milliseconds: u64) -> Now {
    Now { clock: Duration::from_millis(milliseconds), ..Now::default() }
}

fn request(token: u64, allocator: &SlotAllocator) -> SlotRequest {
    SlotRequest {
        token: Token(token),
        fitting: allocator.policy().all(),
        existing: None,
        dry_run: false,
        over_time: false,
    }
}

fn assignment(token: u64, slot: u32, group: &str) -> Assignment {
    Assignment { token: Token(token), slot, group: group.into() }
}

fn pod(version: ResourceVersion, place: PodPlacement) -> Event {
    Event::PodChanged(
        format!("pod-{version}").into(),
        PodRecord { version, state: PodState::Active, placement: place, costed: false, marked: true },
    )
}

fn reserved(content: &LedgerContent) -> Vec<(u64, u32)> {
    content.reservations.iter().map(|own| (own.assignment.token.0, own.assignment.slot)).collect()
}

/// The one write that is to be made.
fn write(effects: &[Effect]) -> (Option<ResourceVersion>, &LedgerContent) {
    match effects {
        [Effect::Call(Call::Write(version, content))] => (*version, content),
        other => panic!("no write: {other:?}"),
    }
}

#[test]
fn requests_of_a_burst_share_writes() {
    let allocator = allocator(&[(0, 1), (0, 1)]);
    let mut ledger = Ledger::new(LedgerConfig::default());
    let requests: Vec<_> = (0..100).map(|token| request(token, &allocator)).collect();
    let arrival = |token: usize| Event::Requested(requests[token].clone(), DEADLINE);
    let mut handle = |event, now: u64| {
        let effects = ledger.handle(event, &allocator, &at(now));
        (effects, ledger.next_tick())
    };
    assert_eq!(handle(arrival(1), 0).0, [Effect::Call(Call::Read)]);
    let (effects, _) = handle(Event::Read(None), 5);
    assert_eq!((write(&effects).0, reserved(write(&effects).1)), (None, vec![(1, 0)]));
    for token in 2..100 {
        assert_eq!(handle(arrival(token), 6).0, []);
    }
    let (effects, wakes) = handle(Event::Written(Some(7)), 10);
    assert_eq!(effects, [Effect::Reply(Token(1), SlotReply::Placed(assignment(1, 0, "a")))]);
    assert_eq!(wakes, Some(Duration::from_millis(25)), "twenty after the write before");
    assert_eq!(handle(Event::Tick, 24).0, []);
    let (effects, _) = handle(Event::Tick, 25);
    let (version, content) = write(&effects);
    assert_eq!(version, Some(7));
    assert_eq!(reserved(content), (1..100).zip(0..99).collect::<Vec<_>>());
}

/// The watch delivers the conflicting write before or after the conflict.
#[test]
fn conflict_needs_no_read_after_watch_event() {
    let allocator = allocator(&[(0, 1), (0, 1)]);
    let others = |reserved| {
        let reservation =
            |slot| Reservation { assignment: assignment(100 + u64::from(slot), slot, "a"), pod: None, at: 0 };
        LedgerContent { reservations: (0..reserved).map(reservation).collect(), ..LedgerContent::default() }
    };
    let mut ledger = Ledger::new(LedgerConfig::default());
    let mut handle = |event, now| (ledger.handle(event, &allocator, &at(now)), ledger.next_tick());
    let ask = |token| {
        let fitting = [0, 1].into_iter().collect();
        let request =
            SlotRequest { token: Token(token), fitting, existing: None, dry_run: false, over_time: false };
        Event::Requested(request, DEADLINE)
    };
    assert_eq!(handle(ask(1), 0).0, [Effect::Call(Call::Read)]);
    assert_eq!(write(&handle(Event::Read(Some((5, others(1)))), 5).0).0, Some(5));
    assert_eq!(handle(Event::ObjectChanged(7, Some(others(2))), 8).0, []);
    let (effects, _) = handle(Event::Conflict, 9);
    assert_eq!((write(&effects).0, reserved(write(&effects).1)), (Some(7), vec![(100, 0), (101, 1), (1, 2)]));

    let (effects, wakes) = handle(Event::Conflict, 15);
    assert_eq!((effects, wakes), (vec![], Some(Duration::from_millis(35))));
    assert_eq!(handle(Event::ObjectChanged(6, Some(others(1))), 16).0, [], "that is old");
    let (effects, _) = handle(Event::ObjectChanged(9, Some(others(3))), 17);
    assert_eq!((write(&effects).0, reserved(write(&effects).1).len()), (Some(9), 4));
    // A watch that shows nothing isn't waited for.
    handle(Event::Conflict, 20);
    assert_eq!(handle(Event::Tick, 40).0, [Effect::Call(Call::Read)]);
}

#[test]
fn request_past_deadline_is_estimated() {
    let allocator = allocator(&[(0, 1), (0, 1)]);
    let mut ledger = Ledger::new(LedgerConfig::default());
    ledger.handle(pod(5, PodPlacement::Assigned(assignment(9, 0, "a"))), &allocator, &at(0));
    assert_eq!(
        ledger.handle(Event::Requested(request(1, &allocator), DEADLINE), &allocator, &at(0)),
        [Effect::Call(Call::Read)]
    );
    assert_eq!(ledger.handle(Event::Tick, &allocator, &at(1999)), []);
    assert_eq!(ledger.next_tick(), Some(Duration::from_secs(2)));
    let estimated = Effect::Reply(Token(1), SlotReply::Estimated(assignment(1, 1, "b")));
    assert_eq!(ledger.handle(Event::Tick, &allocator, &at(2000)), [estimated]);
    // The next one knows of it.
    let next = request(2, &allocator);
    ledger.handle(Event::Requested(next, Duration::from_secs(3)), &allocator, &at(2000));
    let estimated = Effect::Reply(Token(2), SlotReply::Estimated(assignment(2, 2, "a")));
    assert_eq!(ledger.handle(Event::Tick, &allocator, &at(3000)), [estimated]);
}

/// Else it would be given a place that another has been given meanwhile.
#[test]
fn conflicting_write_past_deadline_uses_winner() {
    let allocator = allocator(&[(0, 4), (0, 1)]);
    let mut ledger = Ledger::new(LedgerConfig::default());
    let hasty = request(1, &allocator);
    ledger.handle(Event::Requested(hasty, Duration::from_secs(1)), &allocator, &at(0));
    let effects = ledger.handle(Event::Read(None), &allocator, &at(5));
    assert_eq!(reserved(write(&effects).1), [(1, 0)]);
    let reservation =
        |slot| Reservation { assignment: assignment(100 + u64::from(slot), slot, "a"), pod: None, at: 0 };
    let others =
        LedgerContent { reservations: (0..2).map(reservation).collect(), ..LedgerContent::default() };
    assert_eq!(ledger.handle(Event::ObjectChanged(7, Some(others)), &allocator, &at(900)), []);
    let estimated = Effect::Reply(Token(1), SlotReply::Estimated(assignment(1, 2, "b")));
    assert_eq!(ledger.handle(Event::Tick, &allocator, &at(1000)), [estimated]);
}

#[test]
fn full_ledger_replies_at_once() {
    let full = LedgerConfig { max_reservations: 2, ..LedgerConfig::default() };
    let allocator = allocator(&[(0, 1)]);
    let mut ledger = Ledger::new(full);
    for token in 1..=3 {
        let request = request(token, &allocator);
        ledger.handle(Event::Requested(request, DEADLINE), &allocator, &at(0));
    }
    let effects = ledger.handle(Event::Read(None), &allocator, &at(5));
    let [Effect::Reply(Token(3), SlotReply::Estimated(estimated)), Effect::Call(Call::Write(None, content))] =
        &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!((estimated.slot, reserved(content)), (2, vec![(1, 0), (2, 1)]));
}

#[test]
fn pods_beyond_all_maxima_are_unplaced() {
    let allocator = allocator(&[(1, 0)]);
    let mut ledger = Ledger::new(LedgerConfig::default());
    for token in 1..=2 {
        let request = request(token, &allocator);
        ledger.handle(Event::Requested(request, DEADLINE), &allocator, &at(0));
    }
    let effects = ledger.handle(Event::Read(None), &allocator, &at(5));
    assert_eq!(effects[0], Effect::Reply(Token(2), SlotReply::Unplaced));
    assert_eq!(reserved(write(&effects[1..]).1), [(1, 0)]);
}

#[test]
fn pods_from_before_are_given_slots() {
    let allocator = allocator(&[(0, 1), (0, 1)]);
    let mut ledger = Ledger::new(LedgerConfig::default());
    for (version, place) in [
        (5, PodPlacement::Inferred("b".into())),
        (6, PodPlacement::Unknown),
        (7, PodPlacement::Inferred("a".into())),
    ] {
        ledger.handle(pod(version, place), &allocator, &at(0));
    }
    assert_eq!(ledger.handle(Event::Reconcile, &allocator, &at(0)), [Effect::Call(Call::Read)]);
    let effects = ledger.handle(Event::Read(None), &allocator, &at(5));
    let (_, content) = write(&effects);
    let moves: Vec<_> =
        content.reservations.iter().map(|own| (own.pod.as_deref(), own.assignment.slot)).collect();
    assert_eq!(moves, [(Some("pod-5"), 1), (Some("pod-7"), 0)]);
    let stamps = ledger.handle(Event::Written(Some(8)), &allocator, &at(10));
    assert!(matches!(&stamps[..], [Effect::Reassign(first, 5, _), Effect::Reassign(second, 7, _)]
        if &**first == "pod-5" && &**second == "pod-7"));
}

/// Other replicas drop its reservations, and it need not read the ledger again.
#[test]
fn owner_without_pods_is_forgotten() {
    let minutes = |minutes| Duration::from_mins(minutes);
    let allocator = allocator(&[(0, 1)]);
    let mut ledger = Ledger::new(LedgerConfig::default());
    let placed = |ledger: &mut Ledger, allocator: &SlotAllocator| {
        ledger.handle(Event::Requested(request(1, allocator), DEADLINE), allocator, &at(0));
        ledger.handle(Event::Read(None), allocator, &at(0));
        ledger.handle(Event::Written(Some(7)), allocator, &at(0));
    };
    placed(&mut ledger, &allocator);
    assert!(!ledger.can_be_dropped(minutes(1)), "its pod may still come");
    assert!(ledger.can_be_dropped(minutes(10)), "it never came");
    let name = "pod-8".into();
    ledger.handle(pod(8, PodPlacement::Assigned(assignment(1, 0, "a"))), &allocator, &at(1));
    assert!(!ledger.can_be_dropped(minutes(10)), "it is there");
    let gone = PodRecord {
        version: 9,
        state: PodState::Gone,
        placement: PodPlacement::Unknown,
        costed: false,
        marked: true,
    };
    ledger.handle(Event::PodChanged(name, gone), &allocator, &at(2));
    assert!(ledger.can_be_dropped(minutes(10)));

    let mut late = Ledger::new(LedgerConfig::default());
    late.handle(Event::Requested(request(1, &allocator), DEADLINE), &allocator, &at(0));
    late.handle(Event::Tick, &allocator, &at(2000));
    late.handle(Event::Failed, &allocator, &at(2000));
    assert!(
        !late.can_be_dropped(minutes(1)) && late.can_be_dropped(minutes(11)),
        "a pod that was placed without the ledger"
    );
}

#[test]
fn workload_without_pods_leaves_no_state() {
    let allocator = allocator(&[(0, 1)]);
    let mut ledger = Ledger::new(LedgerConfig::default());
    ledger.handle(Event::MaxPods(Some(0)), &allocator, &at(0));
    ledger.handle(Event::Reconcile, &allocator, &at(0));
    assert_eq!(
        ledger.handle(Event::Read(Some((3, LedgerContent::default()))), &allocator, &at(5)),
        [Effect::Call(Call::Delete(3))]
    );
    assert_eq!(ledger.handle(Event::Written(None), &allocator, &at(9)), []);
}

/// The version of the watch is raised after the ledgers got the event. A list may arrive in between.
#[test]
fn outdated_list_is_ignored() {
    let allocator = allocator(&[(0, 1)]);
    let mut ledger = Ledger::new(LedgerConfig::default());
    ledger.handle(pod(105, PodPlacement::Assigned(assignment(1, 0, "a"))), &allocator, &at(0));
    let watched = Now { watched: 102, ..at(1) };
    ledger.handle(Event::PodsListed { version: 103, pods: BTreeMap::new() }, &allocator, &watched);
    assert_eq!(ledger.pods().len(), 1);
    ledger.handle(Event::PodsListed { version: 106, pods: BTreeMap::new() }, &allocator, &watched);
    assert_eq!(ledger.pods().len(), 0, "a later one does");
}

/// The ledger got no tick since.
#[test]
fn expired_estimate_takes_no_slot() {
    let allocator = allocator(&[(0, 1)]);
    let mut ledger = Ledger::new(LedgerConfig::default());
    ledger.handle(Event::Requested(request(1, &allocator), DEADLINE), &allocator, &at(0));
    assert!(matches!(
        ledger.handle(Event::Tick, &allocator, &at(2000))[..],
        [Effect::Reply(_, SlotReply::Estimated(Assignment { slot: 0, .. }))]
    ));
    ledger.handle(Event::Failed, &allocator, &at(2000));
    let hour = 3_600_000;
    let late = request(2, &allocator);
    assert_eq!(
        ledger.handle(Event::Requested(late, Duration::from_hours(2)), &allocator, &at(hour)),
        [Effect::Call(Call::Read)]
    );
    let effects = ledger.handle(Event::Read(None), &allocator, &at(hour));
    assert_eq!(reserved(write(&effects).1), [(2, 0)]);
}
