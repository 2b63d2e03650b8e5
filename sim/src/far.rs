//! A voter that is far away from everybody, and the observers that happen to follow it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use frazil_core::BrokerId;
use frazil_core::env::Ids as _;
use frazil_core::env::testing::SeededIds;
use frazil_metadata::{ClientConfig, Metrics, Observer, Registration};
use parking_lot::Mutex;
use tokio::sync::watch;
use turmoil::Builder;

use crate::judge::Needed;
use crate::node::{self, Host, Role, Shared};
use crate::store::World;
use crate::{entropy, trace};

/// Messages to the far voter take so long.
const FAR: Duration = Duration::from_millis(266);
/// Enough for some to follow each voter.
const OBSERVERS: i32 = 6;

#[derive(Default)]
struct Seen {
    leader: Option<u64>,
    /// How long each command of an observer took, in virtual milliseconds.
    took_ms: BTreeMap<i32, Vec<u64>>,
}

async fn observe(
    number: i32,
    voters: BTreeMap<u64, String>,
    mut far: watch::Receiver<bool>,
    seen: Arc<Mutex<Seen>>,
) -> turmoil::Result {
    let ids = Arc::new(SeededIds::new(number as u64));
    let observer = Observer::start(voters, ids.clone(), Metrics::default())?;
    let client = observer.client(ClientConfig {
        deadline: Duration::from_secs(20),
        attempt: Duration::from_secs(5),
        seal_after: Duration::from_secs(3600),
    });
    client.ready(Duration::from_secs(60)).await?;
    seen.lock().leader = client.status().await?.leader;
    far.wait_for(|far| *far).await?;
    for _ in 0..8 {
        let began = trace::now_ms();
        let registration = Registration {
            id: Some(BrokerId(number)),
            incarnation: ids.uuid(),
            host: "somewhere".to_owned(),
            port: 9092,
            rack: None,
            peer: "somewhere:9093".to_owned(),
            lease: Duration::from_secs(3600),
        };
        client.register(registration).await?;
        let took = trace::now_ms() - began;
        seen.lock().took_ms.entry(number).or_default().push(took);
    }
    Ok(())
}

/// Whoever follows a voter behind a slow link goes over to the leader, and does not wait for that link with
/// every command from then on.
#[test]
fn an_observer_does_not_stay_with_a_voter_that_is_far_away() {
    entropy::seed(1);
    let mut sim = Builder::new()
        .rng_seed(1)
        .epoch(SystemTime::UNIX_EPOCH)
        .tick_duration(Duration::from_millis(1))
        .simulation_duration(Duration::from_secs(600))
        .min_message_latency(Duration::from_millis(0))
        .max_message_latency(Duration::from_millis(4))
        .tcp_capacity(4096)
        .build();
    let voters: BTreeMap<u64, String> = (1..=3).map(|id| (id, format!("v{id}:9093"))).collect();
    let shared = Arc::new(Shared {
        store: World::new(1),
        voters: voters.clone(),
        images: Mutex::default(),
        snapshot_entries: 1000,
        wal: false,
        past_log_bytes: None,
        needed: Needed::default(),
        freezing: None,
    });
    for id in 1..=3 {
        let host = Arc::new(Host::new(format!("v{id}"), Role::Voter(id)));
        let shared = Arc::clone(&shared);
        sim.host(host.name.clone(), move || {
            node::run(Arc::clone(&host), Arc::clone(&shared))
        });
    }
    let (slow, is_slow) = watch::channel(false);
    let seen = Arc::new(Mutex::new(Seen::default()));
    for number in 1..=OBSERVERS {
        let observing = observe(number, voters.clone(), is_slow.clone(), Arc::clone(&seen));
        sim.client(format!("o{number}"), observing);
    }
    let mut step = || {
        let ended = sim.step().expect("no host fails");
        trace::set_now(sim.elapsed().as_millis() as u64);
        (ended, sim.elapsed())
    };
    while step().1 < Duration::from_secs(20) {}
    let leader = seen.lock().leader.expect("there is a leader");
    let far = (1..=3).find(|id| *id != leader).expect("there are three");
    for other in (1..=3).filter(|id| *id != far).map(|id| format!("v{id}")) {
        sim.set_link_latency(format!("v{far}"), other, FAR);
    }
    for number in 1..=OBSERVERS {
        sim.set_link_latency(format!("v{far}"), format!("o{number}"), FAR);
    }
    slow.send_replace(true);
    while !sim.step().expect("no host fails") {
        trace::set_now(sim.elapsed().as_millis() as u64);
    }
    let took = std::mem::take(&mut seen.lock().took_ms);
    assert_eq!(took.len(), OBSERVERS as usize);
    let slowest = |turn: usize| took.values().map(|took| took[turn]).max().unwrap_or(0);
    assert!(
        slowest(0) > 500,
        "somebody follows the one far away: {took:?}"
    );
    for turn in 2..8 {
        assert!(slowest(turn) < 100, "as fast as the leader is: {took:?}");
    }
    // Dropping hosts outside of their world is nothing the network is made for.
    std::mem::forget(sim);
}
