//! What the model can't tell from outside: which calls are made, and when.

use std::time::Duration;

use super::*;
use crate::policy::{Group, Policy, Tie};
use crate::rules::Rules;

/// Groups named `a`, `b`, ... of these bases and weights.
fn rules(groups: &[(u32, u32)]) -> Rules {
    let group = |(name, (base, weight)): (char, &(u32, u32))| Group {
        name: name.to_string().into(),
        node_labels: BTreeMap::from([("group".to_owned(), name.to_string())]),
        base: *base,
        weight: *weight,
        ..Group::default()
    };
    Rules::new(Policy::new(('a'..).zip(groups).map(group).collect(), Tie::First).unwrap())
}

fn at(milliseconds: u64) -> Now {
    Now { clock: Duration::from_millis(milliseconds), ..Now::default() }
}

fn request(token: u64, rules: &Rules) -> Request {
    let deadline = Duration::from_secs(2);
    Request { token: Token(token), fitting: rules.policy().all(), bears: None, dry_run: false, deadline }
}

fn stamp(token: u64, slot: u32, group: &str) -> Stamp {
    Stamp { token: Token(token), slot, group: group.into() }
}

fn pod(version: Version, place: Place) -> Event {
    Event::Watched(
        format!("pod-{version}").into(),
        Pod { version, phase: Phase::Live, place, costed: false, marked: true },
    )
}

fn reserved(content: &Content) -> Vec<(u64, u32)> {
    content.reservations.iter().map(|own| (own.stamp.token.0, own.stamp.slot)).collect()
}

/// The one write that is to be made.
fn write(effects: &[Effect]) -> (Option<Version>, &Content) {
    match effects {
        [Effect::Write(version, content)] => (*version, content),
        other => panic!("no write: {other:?}"),
    }
}

#[test]
fn a_burst_shares_writes() {
    let mut rules = rules(&[(0, 1), (0, 1)]);
    let mut ledger = Ledger::default();
    let requests: Vec<_> = (0..100).map(|token| request(token, &rules)).collect();
    let arrival = |token: usize| Event::Arrived(requests[token].clone());
    let mut handle = |event, now: u64| {
        let effects = ledger.handle(event, &mut rules, &at(now));
        (effects, ledger.wakes())
    };
    assert_eq!(handle(arrival(1), 0).0, [Effect::Read]);
    let (effects, _) = handle(Event::Read(None), 5);
    assert_eq!((write(&effects).0, reserved(write(&effects).1)), (None, vec![(1, 0)]));
    for token in 2..100 {
        assert_eq!(handle(arrival(token), 6).0, []);
    }
    let (effects, wakes) = handle(Event::Written(Some(7)), 10);
    assert_eq!(effects, [Effect::Answer(Token(1), Answer::Placed(stamp(1, 0, "a")))]);
    assert_eq!(wakes, Some(Duration::from_millis(25)), "twenty after the write before");
    assert_eq!(handle(Event::Tick, 24).0, []);
    let (effects, _) = handle(Event::Tick, 25);
    let (version, content) = write(&effects);
    assert_eq!(version, Some(7));
    assert_eq!(reserved(content), (1..100).zip(0..99).collect::<Vec<_>>());
}

/// What its write has lost to the watch shows, before or after it hears of that.
#[test]
fn who_loses_needs_no_read() {
    let mut rules = rules(&[(0, 1), (0, 1)]);
    let others = |reserved| {
        let reservation =
            |slot| Reservation { stamp: stamp(100 + u64::from(slot), slot, "a"), pod: None, at: 0 };
        Content { reservations: (0..reserved).map(reservation).collect(), fence: 0 }
    };
    let mut ledger = Ledger::default();
    let mut handle = |event, now| (ledger.handle(event, &mut rules, &at(now)), ledger.wakes());
    let ask = |token| {
        let fitting = [0, 1].into_iter().collect();
        let deadline = Duration::from_secs(2);
        Event::Arrived(Request { token: Token(token), fitting, bears: None, dry_run: false, deadline })
    };
    assert_eq!(handle(ask(1), 0).0, [Effect::Read]);
    assert_eq!(write(&handle(Event::Read(Some((5, others(1)))), 5).0).0, Some(5));
    assert_eq!(handle(Event::Noticed(7, Some(others(2))), 8).0, []);
    let (effects, _) = handle(Event::Conflict, 9);
    assert_eq!((write(&effects).0, reserved(write(&effects).1)), (Some(7), vec![(100, 0), (101, 1), (1, 2)]));

    let (effects, wakes) = handle(Event::Conflict, 15);
    assert_eq!((effects, wakes), (vec![], Some(Duration::from_millis(35))));
    assert_eq!(handle(Event::Noticed(6, Some(others(1))), 16).0, [], "that is old");
    let (effects, _) = handle(Event::Noticed(9, Some(others(3))), 17);
    assert_eq!((write(&effects).0, reserved(write(&effects).1).len()), (Some(9), 4));
    // A watch that shows nothing isn't waited for.
    handle(Event::Conflict, 20);
    assert_eq!(handle(Event::Tick, 40).0, [Effect::Read]);
}

#[test]
fn who_waits_too_long_is_placed_by_what_is_known() {
    let mut rules = rules(&[(0, 1), (0, 1)]);
    let mut ledger = Ledger::default();
    ledger.handle(pod(5, Place::Stamped(stamp(9, 0, "a"))), &mut rules, &at(0));
    assert_eq!(ledger.handle(Event::Arrived(request(1, &rules)), &mut rules, &at(0)), [Effect::Read]);
    assert_eq!(ledger.handle(Event::Tick, &mut rules, &at(1999)), []);
    assert_eq!(ledger.wakes(), Some(Duration::from_secs(2)));
    let estimated = Effect::Answer(Token(1), Answer::Estimated(stamp(1, 1, "b")));
    assert_eq!(ledger.handle(Event::Tick, &mut rules, &at(2000)), [estimated]);
    // The next one knows of it.
    let next = Request { deadline: Duration::from_secs(3), ..request(2, &rules) };
    ledger.handle(Event::Arrived(next), &mut rules, &at(2000));
    let estimated = Effect::Answer(Token(2), Answer::Estimated(stamp(2, 2, "a")));
    assert_eq!(ledger.handle(Event::Tick, &mut rules, &at(3000)), [estimated]);
}

/// Else it would be given a place that another has been given meanwhile.
#[test]
fn who_waits_too_long_for_a_write_that_loses_is_placed_by_what_it_loses_to() {
    let mut rules = rules(&[(0, 4), (0, 1)]);
    let mut ledger = Ledger::default();
    let hasty = Request { deadline: Duration::from_secs(1), ..request(1, &rules) };
    ledger.handle(Event::Arrived(hasty), &mut rules, &at(0));
    let effects = ledger.handle(Event::Read(None), &mut rules, &at(5));
    assert_eq!(reserved(write(&effects).1), [(1, 0)]);
    let reservation = |slot| Reservation { stamp: stamp(100 + u64::from(slot), slot, "a"), pod: None, at: 0 };
    let others = Content { reservations: (0..2).map(reservation).collect(), fence: 0 };
    assert_eq!(ledger.handle(Event::Noticed(7, Some(others)), &mut rules, &at(900)), []);
    let estimated = Effect::Answer(Token(1), Answer::Estimated(stamp(1, 2, "b")));
    assert_eq!(ledger.handle(Event::Tick, &mut rules, &at(1000)), [estimated]);
}

#[test]
fn a_ledger_that_is_full_is_no_reason_to_wait() {
    let full = Settings { max_reservations: 2, ..Settings::default() };
    let mut rules = rules(&[(0, 1)]).with_settings(full);
    let mut ledger = Ledger::default();
    for token in 1..=3 {
        let request = request(token, &rules);
        ledger.handle(Event::Arrived(request), &mut rules, &at(0));
    }
    let effects = ledger.handle(Event::Read(None), &mut rules, &at(5));
    let [Effect::Answer(Token(3), Answer::Estimated(estimated)), Effect::Write(None, content)] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!((estimated.slot, reserved(content)), (2, vec![(1, 0), (2, 1)]));
}

#[test]
fn more_pods_than_there_is_room_for_go_nowhere() {
    let mut rules = rules(&[(1, 0)]);
    let mut ledger = Ledger::default();
    for token in 1..=2 {
        let request = request(token, &rules);
        ledger.handle(Event::Arrived(request), &mut rules, &at(0));
    }
    let effects = ledger.handle(Event::Read(None), &mut rules, &at(5));
    assert_eq!(effects[0], Effect::Answer(Token(2), Answer::Unplaced));
    assert_eq!(reserved(write(&effects[1..]).1), [(1, 0)]);
}

#[test]
fn pods_from_before_are_given_slots() {
    let mut rules = rules(&[(0, 1), (0, 1)]);
    let mut ledger = Ledger::default();
    for (version, place) in [(5, Place::Told("b".into())), (6, Place::Unknown), (7, Place::Told("a".into()))]
    {
        ledger.handle(pod(version, place), &mut rules, &at(0));
    }
    assert_eq!(ledger.handle(Event::Tend, &mut rules, &at(0)), [Effect::Read]);
    let effects = ledger.handle(Event::Read(None), &mut rules, &at(5));
    let (_, content) = write(&effects);
    let moves: Vec<_> = content.reservations.iter().map(|own| (own.pod.as_deref(), own.stamp.slot)).collect();
    assert_eq!(moves, [(Some("pod-5"), 1), (Some("pod-7"), 0)]);
    let stamps = ledger.handle(Event::Written(Some(8)), &mut rules, &at(10));
    assert!(matches!(&stamps[..], [Effect::Stamp(first, 5, _), Effect::Stamp(second, 7, _)]
        if &**first == "pod-5" && &**second == "pod-7"));
}

/// Others drop what it has reserved, and it needn't ever read that.
#[test]
fn an_owner_whose_pods_are_gone_is_forgotten() {
    let minutes = |minutes| Duration::from_mins(minutes);
    let mut rules = rules(&[(0, 1)]);
    let mut ledger = Ledger::default();
    let placed = |ledger: &mut Ledger, rules: &mut Rules| {
        ledger.handle(Event::Arrived(request(1, rules)), rules, &at(0));
        ledger.handle(Event::Read(None), rules, &at(0));
        ledger.handle(Event::Written(Some(7)), rules, &at(0));
    };
    placed(&mut ledger, &mut rules);
    assert!(!ledger.is_blank(minutes(1)), "its pod may still come");
    assert!(ledger.is_blank(minutes(10)), "it never came");
    let name = "pod-8".into();
    ledger.handle(pod(8, Place::Stamped(stamp(1, 0, "a"))), &mut rules, &at(1));
    assert!(!ledger.is_blank(minutes(10)), "it is there");
    let gone = Pod { version: 9, phase: Phase::Gone, place: Place::Unknown, costed: false, marked: true };
    ledger.handle(Event::Watched(name, gone), &mut rules, &at(2));
    assert!(ledger.is_blank(minutes(10)));

    let mut late = Ledger::default();
    late.handle(Event::Arrived(request(1, &rules)), &mut rules, &at(0));
    late.handle(Event::Tick, &mut rules, &at(2000));
    late.handle(Event::Failed, &mut rules, &at(2000));
    assert!(
        !late.is_blank(minutes(1)) && late.is_blank(minutes(11)),
        "a pod that was placed without the ledger"
    );
}

#[test]
fn nothing_is_kept_of_a_workload_without_pods() {
    let mut rules = rules(&[(0, 1)]);
    let mut ledger = Ledger::default();
    ledger.handle(Event::Owner(Some(0)), &mut rules, &at(0));
    ledger.handle(Event::Tend, &mut rules, &at(0));
    assert_eq!(
        ledger.handle(Event::Read(Some((3, Content::default()))), &mut rules, &at(5)),
        [Effect::Remove(3)]
    );
    assert_eq!(ledger.handle(Event::Written(None), &mut rules, &at(9)), []);
}

/// The version that the watch has reached is raised after the ledgers were told: meanwhile a list may come in.
#[test]
fn a_list_from_before_the_last_event_changes_nothing() {
    let mut rules = rules(&[(0, 1)]);
    let mut ledger = Ledger::default();
    ledger.handle(pod(105, Place::Stamped(stamp(1, 0, "a"))), &mut rules, &at(0));
    let watched = Now { watched: 102, ..at(1) };
    ledger.handle(Event::Surveyed { version: 103, pods: BTreeMap::new() }, &mut rules, &watched);
    assert_eq!(ledger.pods().len(), 1);
    ledger.handle(Event::Surveyed { version: 106, pods: BTreeMap::new() }, &mut rules, &watched);
    assert_eq!(ledger.pods().len(), 0, "a later one does");
}

/// Nobody has told it the time since.
#[test]
fn an_estimate_that_has_grown_old_takes_no_slot() {
    let mut rules = rules(&[(0, 1)]);
    let mut ledger = Ledger::default();
    ledger.handle(Event::Arrived(request(1, &rules)), &mut rules, &at(0));
    assert!(matches!(
        ledger.handle(Event::Tick, &mut rules, &at(2000))[..],
        [Effect::Answer(_, Answer::Estimated(Stamp { slot: 0, .. }))]
    ));
    ledger.handle(Event::Failed, &mut rules, &at(2000));
    let hour = 3_600_000;
    let late = Request { deadline: Duration::from_hours(2), ..request(2, &rules) };
    assert_eq!(ledger.handle(Event::Arrived(late), &mut rules, &at(hour)), [Effect::Read]);
    let effects = ledger.handle(Event::Read(None), &mut rules, &at(hour));
    assert_eq!(reserved(write(&effects).1), [(2, 0)]);
}
