//! A command sent twice happens once.

use super::*;

const HOUR_MS: i64 = 60 * 60 * 1000;

fn allocate(client: u128, request: u64, done_below: u64, time_ms: i64) -> Envelope {
    Envelope {
        client: Uuid::from_u128(client),
        request,
        done_below,
        time_ms,
        command: Command::AllocateProducerIds { count: 1 },
    }
}

fn first(id: i64) -> Outcome {
    Outcome::ProducerIds {
        first: ProducerId(id),
    }
}

#[test]
fn a_repetition_gets_the_first_outcome() {
    let mut world = World::new();
    let mut send =
        |client, request, done_below| world.send(&allocate(client, request, done_below, 0)).0;
    assert_eq!(send(1, 0, 0), first(0));
    assert_eq!(send(1, 1, 0), first(1));
    assert_eq!(send(2, 1, 0), first(2));
    assert_eq!(send(1, 0, 0), first(0));
    assert_eq!(send(1, 1, 1), first(1));
    assert_eq!(send(1, 0, 1), Outcome::Stale);
    // The bound does not go back with an older copy.
    assert_eq!(send(1, 0, 0), Outcome::Stale);
    // A request may overtake another.
    assert_eq!(send(1, 9, 1), first(3));
    assert_eq!(send(1, 8, 1), first(4));
    assert_eq!(send(1, 9, 1), first(3));
    // Of its own bound, too.
    assert_eq!(send(1, 10, 11), Outcome::Stale);
    assert_eq!(world.state.sessions.len(), 2);
}

#[test]
fn refusals_are_remembered_too() {
    let mut world = World::new();
    let create = |client| Envelope {
        command: Command::CreateTopic(new_topic(client, "taken", 1)),
        ..allocate(client, 0, 0, 0)
    };
    world.send(&create(1));
    let refused = world.send(&create(2)).0;
    assert!(matches!(refused, Outcome::TopicCreated(Err(_))));
    world.apply(Command::DeleteTopic { id: topic_id(1) });
    assert_eq!(world.send(&create(2)).0, refused);
    assert_eq!(world.state.topic("taken"), None);
}

#[test]
fn a_session_ends_when_idle_for_an_hour_and_for_many_commands() {
    let mut world = World::new();
    assert_eq!(world.send(&allocate(1, 0, 0, 0)).0, first(0));
    // The clock leaps; the retry on its way still finds its outcome.
    assert_eq!(world.send(&allocate(1, 0, 0, 9 * HOUR_MS)).0, first(0));
    world.now_ms = 10 * HOUR_MS;
    for _ in 0..1_000 {
        world.apply(Command::ClaimCollector);
    }
    assert_eq!(world.state.sessions.len(), 1);
    world.now_ms += 1;
    world.apply(Command::ClaimCollector);
    assert_eq!(world.state.sessions.len(), 0);
}

#[test]
fn an_active_session_outlives_an_idle_one() {
    let mut world = World::new();
    world.send(&allocate(1, 0, 0, 0));
    world.send(&allocate(2, 0, 0, 0));
    for request in 1..=1_100 {
        let time_ms = 2 * HOUR_MS + request as i64;
        world.send(&allocate(1, request, request, time_ms));
    }
    assert_eq!(world.state.sessions.len(), 1);
    let again = world.send(&allocate(1, 1_100, 0, 0)).0;
    assert_eq!(again, first(1_101));
}

#[test]
fn outcomes_are_remembered_up_to_a_limit() {
    let mut world = World::new();
    for request in 0..5_000 {
        world.index += 1;
        world.state.apply(world.index, &allocate(1, request, 0, 0));
    }
    world.state.check().expect("consistent");
    assert_eq!(world.send(&allocate(1, 903, 0, 0)).0, Outcome::Stale);
    assert_eq!(world.send(&allocate(1, 904, 0, 0)).0, first(904));
    assert_eq!(world.send(&allocate(1, 4_999, 0, 0)).0, first(4_999));
}

#[test]
fn the_nil_client_has_no_session() {
    let mut world = World::new();
    assert_eq!(world.send(&allocate(0, 0, 0, 0)).0, first(0));
    assert_eq!(world.send(&allocate(0, 0, 7, 0)).0, first(1));
    assert_eq!(world.state.sessions.len(), 0);
}
