//! One seed: the cluster is made, works under faults, is healed, and judged.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use frazil_compactor::FreezeConfig;
use frazil_core::BrokerId;
use frazil_core::env::testing::MemDisk;
use frazil_history::workload::{Role as Work, Worker};
use frazil_history::{Client, Group, Recorder, Rng};
use parking_lot::Mutex;
use tokio::sync::watch;
use turmoil::{Builder, Sim};

use crate::client::{Crowd, Phase, crowd, partitions};
use crate::frozen::Frozen;
use crate::judge::{self, Verdict};
use crate::node::{self, CHORES, GRACE, Host, Role, Shared};
use crate::plan::{Fault, Fleet, calm, plan};
use crate::store::World;
use crate::{entropy, frozen, trace};

/// How long the network takes one step, and how late things arrive at least.
const TICK: Duration = Duration::from_millis(1);
/// After how long a part of the simulation that does not end is stuck.
const PATIENCE_MS: u64 = 180_000;
/// Clocks that are off by less delay nothing that is waited for.
const CLOCKS_MS: u64 = 1500;
/// How long a program that has ended waits before it is started again.
const RESTART_MS: u64 = 300;

/// What a seed is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// How long faults happen, in virtual milliseconds.
    pub faults_ms: u64,
    /// Where to keep the history of a seed that fails.
    pub keep: Option<PathBuf>,
}

struct Cluster<'a> {
    sim: Sim<'a>,
    hosts: Vec<Arc<Host>>,
    names: Vec<String>,
    store: World,
    fleet: Fleet,
    rng: Rng,
    /// Programs that have ended, and when they are started again; by host.
    ended: BTreeMap<usize, (u64, u64)>,
    /// Hosts that are to be down.
    down: Vec<bool>,
    shared: Arc<Shared>,
    /// What has become cold so far.
    frozen: Frozen,
    /// Whether a clock was so far off that what is due by the clock may be due much later.
    leapt: bool,
    /// Links that have been slow.
    slowed: BTreeSet<(usize, usize)>,
}

/// Runs a seed and says what came of it.
pub fn run(options: &Options) -> Verdict {
    entropy::seed(options.seed);
    let mut rng = Rng::new(options.seed);
    let fleet = Fleet {
        voters: 3,
        gateways: 2 + rng.below(2) as usize,
        compactors: 1 + usize::from(rng.chance(70)),
        wipes: rng.chance(50),
    };
    let disk = disk(options.seed, fleet);
    let (mut cluster, shared) = build(options, fleet, disk, &mut rng);
    let crowd_of = people(&mut cluster, &shared, &mut rng);
    let faults = plan(&mut rng, fleet, options.faults_ms);
    let mut ended = cluster.story(&shared, &crowd_of, faults, options.faults_ms);
    if ended.is_ok() {
        ended = frozen::scan(&shared, &crowd_of);
    }
    let history = crowd_of.recorder.history();
    let verdict = judge::judge(options, &history, &shared, ended, cluster.leapt);
    trace::flush();
    // Dropping hosts outside of their world is nothing the network is made for.
    std::mem::forget(cluster);
    verdict
}

/// How many bytes pass the write-ahead log, if the store is a directory on its disk.
fn disk(seed: u64, fleet: Fleet) -> Option<usize> {
    // Of its own, so that all other seeds are what they were before there were any of this kind.
    let mut rng = Rng::new(seed ^ 0xd15c);
    let least = [1, 200, 400, 1000][rng.below(4) as usize];
    // Logs that are lost lose nothing if all batches go past them.
    let least = if fleet.wipes { 1 } else { least };
    rng.chance(50).then_some(least)
}

fn build<'a>(
    options: &Options,
    fleet: Fleet,
    past_log_bytes: Option<usize>,
    rng: &mut Rng,
) -> (Cluster<'a>, Arc<Shared>) {
    let mut sim = Builder::new()
        .rng_seed(rng.next())
        .epoch(SystemTime::UNIX_EPOCH)
        .tick_duration(TICK)
        .simulation_duration(Duration::from_secs(3600))
        .min_message_latency(Duration::from_millis(0))
        .max_message_latency(Duration::from_millis(4))
        .tcp_capacity(4096)
        .enable_random_order()
        .build();
    let mut hosts = Vec::new();
    for id in 1..=fleet.voters as u64 {
        hosts.push(Host::new(format!("v{id}"), Role::Voter(id)));
    }
    for id in 1..=fleet.gateways as i32 {
        hosts.push(Host::new(format!("g{id}"), Role::Gateway(id)));
    }
    for number in 1..=fleet.compactors {
        hosts.push(Host::new(format!("c{number}"), Role::Compactor));
    }
    let hosts: Vec<_> = hosts.into_iter().map(Arc::new).collect();
    let store = World::new(rng.next());
    store.set(calm());
    if past_log_bytes.is_some() {
        store.in_place();
    }
    let shared = Arc::new(Shared {
        store: store.clone(),
        voters: (1..=fleet.voters as u64)
            .map(|id| (id, format!("v{id}:9093")))
            .collect(),
        images: Mutex::default(),
        snapshot_entries: [30, 100, 1000][rng.below(3) as usize],
        wal: rng.chance(75) || past_log_bytes.is_some(),
        past_log_bytes,
        needed: judge::Needed::default(),
        freezing: rng.chance(85).then(|| freezing(rng)),
    });
    judge::watch_deletions(&shared);
    for host in &hosts {
        let (host, shared) = (Arc::clone(host), Arc::clone(&shared));
        sim.host(host.name.clone(), move || {
            node::run(Arc::clone(&host), Arc::clone(&shared))
        });
    }
    let mut names: Vec<String> = hosts.iter().map(|host| host.name.clone()).collect();
    names.push("clients".to_owned());
    trace::note(format_args!(
        "seed {} {fleet:?} past the log: {past_log_bytes:?}",
        options.seed
    ));
    let cluster = Cluster {
        sim,
        down: vec![false; hosts.len()],
        leapt: false,
        slowed: BTreeSet::new(),
        shared: Arc::clone(&shared),
        frozen: Frozen::default(),
        hosts,
        names,
        store,
        fleet,
        rng: Rng::new(rng.next()),
        ended: BTreeMap::new(),
    };
    (cluster, shared)
}

/// Compactors that are always at work, with a little at a time.
fn freezing(rng: &mut Rng) -> FreezeConfig {
    FreezeConfig {
        interval: Duration::from_millis(100 + rng.below(500)),
        jobs: 1 + rng.below(2) as usize,
        memory: 32 << 20,
        job_bytes: [1, 4 << 10, 32 << 10][rng.below(3) as usize],
        waiting_bytes: [4 << 10, 1 << 20][rng.below(2) as usize],
        // Shorter than a job that meets a bad store.
        lease: Duration::from_millis([1500, 6000][rng.below(2) as usize]),
        ..FreezeConfig::new("sim://bucket/cluster".to_owned())
    }
}

/// Topics and clients.
fn people(cluster: &mut Cluster<'_>, shared: &Shared, rng: &mut Rng) -> Crowd {
    let fleet = cluster.fleet;
    let setting = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let mut tables = Vec::new();
    if shared.freezing.is_some() {
        tables = vec![
            setting("frazil.table.mode", "shared"),
            setting("frazil.table.freshness.ms", &rng.below(2500).to_string()),
        ];
        if rng.chance(60) {
            let kept = rng.below(6000).to_string();
            tables.push(setting("frazil.table.snapshot.retention.ms", &kept));
        }
        let by = ["none", "hour", "day", "month", "year"][rng.below(5) as usize];
        tables.push(setting("frazil.table.partition.by", by));
    }
    let kind = |level: &str| {
        // The records' times are of 1970.
        let for_ever = setting("retention.ms", "-1");
        let mut settings = vec![setting("frazil.durability", level), for_ever];
        settings.extend(tables.iter().cloned());
        settings
    };
    let mut topics = vec!["object".to_owned()];
    let mut kinds = vec![kind("object")];
    // What is nowhere but in a log is lost with its disk.
    let may_be_local = !fleet.wipes || shared.past_log_bytes.is_some();
    if may_be_local {
        topics.push("local".to_owned());
        kinds.push(kind("local"));
    }
    if rng.chance(40) {
        topics.push("short".to_owned());
        let mut settings = kind("object");
        settings.push(setting("retention.bytes", "2000"));
        kinds.push(settings);
    }
    let crowd_of = Crowd {
        recorder: Recorder::logical(),
        gateways: cluster.hosts[fleet.gateway()..fleet.compactor()].to_vec(),
        topics: Arc::new(Mutex::new(topics.clone())),
        fixed: topics.len(),
        there: Arc::default(),
        phase: Arc::new(watch::Sender::new(Phase::Begin)),
    };
    let mut roles = vec![
        Work::Idempotent,
        Work::Idempotent,
        Work::Plain(-1),
        Work::Reader,
        Work::Reader,
        Work::Committer(Group(0)),
        Work::Deleter,
    ];
    if may_be_local {
        roles.push(Work::Plain(1));
    }
    let all: Vec<_> = (0..topics.len() as u32).flat_map(partitions).collect();
    let seed = rng.next();
    let workers = (0..).zip(roles).map(|(number, role)| {
        let mut at = all.clone();
        if role == Work::Deleter {
            // The others keep everything, so that nothing lost can pass for deleted.
            at.retain(|at| at.partition == 1);
        }
        Worker::new(role, Client(number), &at, fleet.gateways as u32, seed)
    });
    let workers: Vec<_> = workers.collect();
    let churns = rng.chance(50);
    cluster
        .sim
        .client("clients", crowd(crowd_of.clone(), kinds, workers, churns));
    crowd_of
}

impl Cluster<'_> {
    /// From the start to the end, or until something happens that must not.
    fn story(
        &mut self,
        shared: &Shared,
        crowd: &Crowd,
        faults: Vec<(u64, Fault)>,
        faults_ms: u64,
    ) -> Result<(), String> {
        let phase = |phase: Phase| *crowd.phase.borrow() == phase;
        self.until("the topics to be created", || phase(Phase::Work))?;
        let start = trace::now_ms();
        let mut faults = faults.into_iter().peekable();
        while trace::now_ms() < start + faults_ms {
            while let Some((_, fault)) = faults.next_if(|(at, _)| start + at <= trace::now_ms()) {
                self.inflict(&fault);
            }
            self.step()?;
            self.frozen.look(shared, crowd);
        }
        trace::note(format_args!("heal"));
        self.heal();
        let calm = trace::now_ms() + 500;
        self.until("a moment", || trace::now_ms() >= calm)?;
        crowd.phase.send_replace(Phase::Stop);
        self.until("the clients to finish", || phase(Phase::Stopped))?;
        self.store.settle(u64::MAX);
        // What one gateway alone has is read through that one alone, until it is in the store.
        let gateways = 1..=self.fleet.gateways as i32;
        let is_uploaded = || {
            let image = shared.newest()?;
            let is_empty = |id| image.read(|state| state.wal_extents(BrokerId(id)).is_empty());
            gateways.clone().all(is_empty).then_some(())
        };
        self.until("all batches to be in the store", || is_uploaded().is_some())?;
        if shared.freezing.is_some() && self.rng.chance(70) {
            // What is read then is read from tables.
            self.until("everything to be cold", || frozen::is_all(shared, crowd))?;
        }
        self.frozen.look(shared, crowd);
        crowd.phase.send_replace(Phase::Sweep);
        self.until("everything to be read", || phase(Phase::Swept))?;
        // What nothing refers to is gone after the grace period and two rounds, and the leases of
        // lives that are over must have ended before.
        let soon = trace::now_ms() + (GRACE + CHORES * 3).as_millis() as u64 + 8000;
        // A collector that follows a voter which it does not hear notices in eight seconds, and
        // begins then. What is left after that is for the judge to say.
        // Compactors that have much to look through take turns at it, too.
        let late = soon
            + if shared.freezing.is_some() {
                60_000
            } else {
                20_000
            };
        let next = Cell::new(soon);
        self.until("the collector", || {
            let now = trace::now_ms();
            let looks = now >= next.get();
            if looks {
                next.set(now + 200);
            }
            now >= late || (looks && judge::uncollected(shared) == 0)
        })
    }

    fn until(&mut self, what: &str, done: impl Fn() -> bool) -> Result<(), String> {
        let start = trace::now_ms();
        while !done() {
            if trace::now_ms() > start + PATIENCE_MS {
                return Err(format!("stuck: waited in vain for {what}"));
            }
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        self.sim.step().map_err(|error| error.to_string())?;
        let now = self.sim.elapsed().as_millis() as u64;
        trace::set_now(now);
        self.store.settle(now);
        if now % 100 == 0 {
            judge::remember_retired(&self.shared);
        }
        for index in 0..self.hosts.len() {
            let ended = self.hosts[index].ended.load(Ordering::Relaxed);
            let (seen, again) = self.ended.entry(index).or_default();
            if *seen != ended {
                (*seen, *again) = (ended, now + RESTART_MS);
            }
            if *again != 0 && now >= *again && !self.down[index] {
                *again = 0;
                self.start(index);
            }
        }
        Ok(())
    }

    fn start(&mut self, index: usize) {
        let name = self.names[index].as_str();
        self.down[index] = false;
        if !self.sim.is_host_running(name) {
            trace::note(format_args!("bounce {name}"));
            self.sim.bounce(name);
        }
    }

    fn others(&self, index: usize) -> Vec<usize> {
        (0..self.names.len())
            .filter(|other| *other != index)
            .collect()
    }

    fn crash(&mut self, index: usize) {
        let name = self.names[index].as_str();
        self.sim.crash(name);
        self.down[index] = true;
        self.hosts[index].disk.lock().crash(self.rng.next());
        self.store.crash(&self.names[index]);
    }

    fn inflict(&mut self, fault: &Fault) {
        trace::note(format_args!("fault {fault:?}"));
        let names = &self.names;
        match *fault {
            Fault::Crash(host) => self.crash(host),
            Fault::Power(host) => {
                self.inflict(&Fault::Isolate(host));
                self.crash(host);
                self.inflict(&Fault::JoinAll(host));
            }
            Fault::Wipe(host) => {
                self.crash(host);
                *self.hosts[host].disk.lock() = MemDisk::new();
            }
            Fault::Start(host) => self.start(host),
            Fault::Drain(host) => {
                self.down[host] = true;
                self.hosts[host].drain.lock().cancel();
            }
            Fault::Part(a, b) => self.sim.partition(&*names[a], &*names[b]),
            Fault::OneWay(a, b) => self.sim.partition_oneway(&*names[a], &*names[b]),
            Fault::Isolate(host) => {
                for other in self.others(host) {
                    self.sim.partition(&*self.names[host], &*self.names[other]);
                }
            }
            Fault::Hold(a, b) => self.sim.hold(&*names[a], &*names[b]),
            Fault::Freeze(host) => {
                self.store.cut_off(&self.names[host], true);
                for other in self.others(host) {
                    self.sim.hold(&*self.names[host], &*self.names[other]);
                }
            }
            Fault::Slow(a, b, ms) => {
                self.slowed.insert((a, b));
                let ms = Duration::from_millis(ms);
                self.sim.set_link_latency(&*names[a], &*names[b], ms);
            }
            Fault::Join(a, b) => self.sim.release(&*names[a], &*names[b]),
            Fault::JoinAll(host) => {
                self.store.cut_off(&self.names[host], false);
                for other in self.others(host) {
                    self.sim.release(&*self.names[host], &*self.names[other]);
                }
            }
            Fault::Clock(host, off) => {
                self.leapt |= off.unsigned_abs() > CLOCKS_MS;
                self.hosts[host].clock_off_ms.store(off, Ordering::Relaxed);
            }
            Fault::Store(weather) => self.store.set(weather),
            Fault::CutOff(host, is) => self.store.cut_off(&self.names[host], is),
        }
    }

    /// Nothing goes wrong any more.
    fn heal(&mut self) {
        self.store.set(calm());
        for host in 0..self.names.len() {
            self.inflict(&Fault::JoinAll(host));
        }
        // A plan may be over before it makes a link as fast again as it was.
        for (a, b) in std::mem::take(&mut self.slowed) {
            self.inflict(&Fault::Slow(a, b, 1));
        }
        for host in 0..self.hosts.len() {
            self.start(host);
        }
    }
}
