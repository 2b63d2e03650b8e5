//! What goes wrong, and when: pure, from the seed.

use frazil_history::Rng;

use crate::store::Weather;

/// Something that happens to the cluster. Hosts are numbers in the list of hosts.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The host's program ends without a word; what its disk had not synced may be lost.
    Crash(usize),
    /// The same, and no connection is closed: the power has failed.
    Power(usize),
    /// The same, and the disk is gone with it.
    Wipe(usize),
    /// The host is started, if it is not running.
    Start(usize),
    /// A gateway is told to leave.
    Drain(usize),
    /// Nothing gets through between two hosts.
    Part(usize, usize),
    /// Nothing gets through from one host to another.
    OneWay(usize, usize),
    /// Nothing gets through between a host and all others, except to the store.
    Isolate(usize),
    /// What is sent between two hosts arrives when they are joined again.
    Hold(usize, usize),
    /// What the host sends and is sent arrives when it is joined again, its requests to the store
    /// too: to all others it is as if it had been stopped.
    Freeze(usize),
    /// Messages between two hosts take so many milliseconds.
    Slow(usize, usize, u64),
    /// Two hosts are joined again.
    Join(usize, usize),
    /// A host is joined with all others again.
    JoinAll(usize),
    /// The host's clock is off by so many milliseconds from now on.
    Clock(usize, i64),
    /// The store behaves differently.
    Store(Weather),
    /// The host reaches the store no longer, or again.
    CutOff(usize, bool),
}

/// The hosts: voters first, then gateways, then compactors, then the clients.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    /// How many voters.
    pub voters: usize,
    /// How many gateways.
    pub gateways: usize,
    /// How many compactors.
    pub compactors: usize,
    /// Whether gateways may lose their disks.
    pub wipes: bool,
}

impl Fleet {
    /// The first gateway.
    pub const fn gateway(&self) -> usize {
        self.voters
    }

    /// The first compactor.
    pub const fn compactor(&self) -> usize {
        self.voters + self.gateways
    }

    /// The clients.
    pub const fn clients(&self) -> usize {
        self.compactor() + self.compactors
    }
}

/// Faults over `length_ms`, in order of time. All but those of the store and the clocks have ended
/// by themselves when it is over, or are ended by whoever heals.
pub fn plan(rng: &mut Rng, fleet: Fleet, length_ms: u64) -> Vec<(u64, Fault)> {
    let mut plan = Vec::new();
    let mut at = rng.below(600);
    // Some seeds have one fault at a time, some have many.
    let pace = [150, 400, 800, 1600][rng.below(4) as usize];
    while at < length_ms {
        // Some outlast a lease and what follows it.
        let longest = if rng.chance(25) { 9000 } else { 1800 };
        let lasts = 100 + rng.below(longest);
        let first = plan.len();
        one(rng, fleet, &mut plan, lasts);
        for (after, _) in &mut plan[first..] {
            *after += at;
        }
        at += 50 + rng.below(pace * 2);
    }
    plan.sort_by_key(|(at, _)| *at);
    plan
}

fn one(rng: &mut Rng, fleet: Fleet, plan: &mut Vec<(u64, Fault)>, lasts: u64) {
    let voter = rng.below(fleet.voters as u64) as usize;
    let gateway = fleet.gateway() + rng.below(fleet.gateways as u64) as usize;
    let compactor = fleet.compactor() + rng.below(fleet.compactors as u64) as usize;
    let any = rng.below(fleet.clients() as u64) as usize;
    let other = {
        // Another than `any`, clients included.
        let turn = 1 + rng.below(fleet.clients() as u64) as usize;
        (any + turn) % (fleet.clients() + 1)
    };
    let mut during = |begin: Fault, end: Fault| {
        plan.push((0, begin));
        plan.push((lasts, end));
    };
    match rng.below(100) {
        0..8 => during(Fault::Crash(voter), Fault::Start(voter)),
        8..12 => during(Fault::Power(voter), Fault::Start(voter)),
        12..20 => during(Fault::Crash(gateway), Fault::Start(gateway)),
        20..26 => during(Fault::Power(gateway), Fault::Start(gateway)),
        26..32 if fleet.wipes => during(Fault::Wipe(gateway), Fault::Start(gateway)),
        26..32 => during(Fault::Crash(gateway), Fault::Start(gateway)),
        32..35 => during(Fault::Crash(compactor), Fault::Start(compactor)),
        35..38 => during(Fault::Drain(gateway), Fault::Start(gateway)),
        38..46 => during(Fault::Part(any, other), Fault::Join(any, other)),
        46..52 => during(Fault::OneWay(any, other), Fault::Join(any, other)),
        52..58 => during(Fault::Isolate(any), Fault::JoinAll(any)),
        58..64 => during(Fault::Hold(any, other), Fault::Join(any, other)),
        64..72 => {
            during(Fault::Freeze(gateway), Fault::JoinAll(gateway));
        }
        72..75 => during(Fault::Freeze(any), Fault::JoinAll(any)),
        75..79 => {
            let slow = 20 + rng.below(300);
            during(Fault::Slow(any, other, slow), Fault::Slow(any, other, 1));
        }
        // A bridge: two voters see the third and not each other.
        79..82 => {
            let next = (voter + 1) % fleet.voters;
            during(Fault::Part(voter, next), Fault::Join(voter, next));
        }
        82..85 => {
            let far = [1000, 10_000, 100_000_000][rng.below(3) as usize];
            let off = rng.below(2 * far) as i64 - far as i64;
            plan.push((0, Fault::Clock(any, off)));
        }
        85..88 => during(Fault::CutOff(gateway, true), Fault::CutOff(gateway, false)),
        // In the middle of a job, or of two.
        88..92 => {
            for number in 0..1 + rng.below(4) {
                plan.push((number * 400, Fault::Crash(compactor)));
                plan.push((number * 400 + 1 + rng.below(399), Fault::Start(compactor)));
            }
        }
        92..94 => during(
            Fault::CutOff(compactor, true),
            Fault::CutOff(compactor, false),
        ),
        _ => {
            let weather = weather(rng);
            during(Fault::Store(weather), Fault::Store(calm()));
        }
    }
}

/// How the store is when nothing is wrong with it.
pub const fn calm() -> Weather {
    Weather {
        throttled: 0,
        unanswered: 0,
        late: 0,
        truncated: 0,
        latency_ms: 12,
        outage: false,
    }
}

fn weather(rng: &mut Rng) -> Weather {
    let mut weather = calm();
    match rng.below(6) {
        0 => weather.outage = true,
        1 => weather.throttled = 20 + rng.below(80),
        2 => weather.unanswered = 10 + rng.below(60),
        3 => weather.late = 10 + rng.below(60),
        4 => weather.latency_ms = 100 + rng.below(1500),
        _ => {
            weather.throttled = rng.below(30);
            weather.unanswered = rng.below(30);
            weather.late = rng.below(20);
            weather.truncated = rng.below(40);
            weather.latency_ms = rng.below(200);
        }
    }
    weather
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_in_order_name_hosts_and_end() {
        let fleet = Fleet {
            voters: 3,
            gateways: 3,
            compactors: 2,
            wipes: true,
        };
        for seed in 0..500 {
            let plan = plan(&mut Rng::new(seed), fleet, 10_000);
            assert!(!plan.is_empty());
            assert!(plan.is_sorted_by_key(|(at, _)| *at));
            for (_, fault) in &plan {
                match fault {
                    Fault::Part(a, b) | Fault::OneWay(a, b) | Fault::Hold(a, b) => {
                        assert!(a != b && *a <= fleet.clients() && *b <= fleet.clients());
                    }
                    Fault::Drain(host) | Fault::Wipe(host) => {
                        assert!((fleet.gateway()..fleet.compactor()).contains(host));
                    }
                    _ => {}
                }
            }
            let count = |what: fn(&Fault) -> bool| plan.iter().filter(|(_, f)| what(f)).count();
            assert!(
                count(|f| matches!(f, Fault::Start(_)))
                    >= count(|f| matches!(f, Fault::Crash(_) | Fault::Power(_) | Fault::Wipe(_)))
            );
        }
    }
}
