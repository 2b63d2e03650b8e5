//! What a scenario acts on: a fleet under load, and the marks of what happened when.

use std::thread::park_timeout;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use frazil_proxy::{Flow, Tripped, Way};
use frazil_store::{Faults, Rule};
use tokio::runtime::Handle;

use super::fleet::{Fleet, GATEWAY};
use super::load::Load;
use super::node::Role;
use super::replay::Replay;
use super::store::Store;

/// How long something that must happen is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// One scenario's stage.
pub(crate) struct Stage<'a> {
    pub fleet: Fleet,
    pub load: &'a Load,
    pub runtime: Handle,
    pub topic: &'a str,
    pub injected: Option<u64>,
    pub healed: Option<u64>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
    pub replay: Option<Replay>,
    /// Lasting faults last half as long.
    pub quick: bool,
    random: u64,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(
        fleet: Fleet,
        load: &'a Load,
        runtime: &Handle,
        topic: &'a str,
        quick: bool,
    ) -> Self {
        Self {
            fleet,
            load,
            runtime: runtime.clone(),
            topic,
            injected: None,
            healed: None,
            notes: Vec::new(),
            replay: None,
            quick,
            random: 0x5851_F42D_4C95_7F2D,
        }
    }

    /// Now the fault begins, if it has not.
    pub(crate) fn inject(&mut self) {
        self.injected.get_or_insert(self.load.timer.now());
    }

    /// Now what was broken works again.
    pub(crate) fn heal(&mut self) {
        self.healed = Some(self.load.timer.now());
    }

    /// Lets time pass.
    pub(crate) fn rest(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.fleet.look_at_memory();
            park_timeout(Duration::from_millis(250).min(time));
        }
    }

    /// Lets so many seconds pass.
    pub(crate) fn seconds(&mut self, seconds: u64) {
        self.rest(Duration::from_secs(seconds));
    }

    /// Lets a lasting fault last.
    pub(crate) fn lasting(&mut self, seconds: u64) {
        self.seconds(if self.quick {
            seconds.div_ceil(2)
        } else {
            seconds
        });
    }

    /// A number below `below`, the same in every run.
    pub(crate) fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below.max(1)
    }

    /// The gateway that is broken where one is enough: the one in the middle.
    pub(crate) fn victim(&self) -> u32 {
        GATEWAY + 1
    }

    /// Waits until a tripwire is touched.
    pub(crate) fn tripped(&self, tripped: Tripped) -> Result<()> {
        let waiting = async { tokio::time::timeout(PATIENCE, tripped.wait()).await };
        match self.runtime.block_on(waiting) {
            Ok(true) => Ok(()),
            _ => bail!("nothing went over the tripwire"),
        }
    }

    /// Waits until the store holds something by this rule; its key, or one of them.
    pub(crate) fn held(&self, rule: &str) -> Result<String> {
        let holding = self.fleet.store.faults().wait_held(rule);
        match self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, holding).await })
        {
            Ok(held) => Ok(held.key),
            Err(_) => bail!("nothing was held by {rule}"),
        }
    }

    /// kill -9, with or without the data; the links forget what they held.
    pub(crate) fn kill(&mut self, id: u32, wipe: bool) -> Result<()> {
        let node = self.fleet.node(id)?;
        node.kill()?;
        if wipe {
            node.wipe()?;
        }
        for link in [&node.links.store, &node.links.clients]
            .into_iter()
            .flatten()
        {
            link.reset();
            link.heal();
        }
        Ok(())
    }

    /// Starts a process again.
    pub(crate) fn start(&mut self, id: u32) -> Result<()> {
        self.fleet.node(id)?.start()
    }

    /// kill -9 now; the process is back after some time.
    pub(crate) fn kill_and_restart(&mut self, id: u32, wipe: bool, away: u64) -> Result<()> {
        self.inject();
        self.kill(id, wipe)?;
        self.heal();
        self.seconds(away);
        self.start(id)?;
        self.seconds(10);
        Ok(())
    }

    /// The store goes wrong like this for a while.
    pub(crate) fn store_does(&mut self, rules: Vec<Rule>, seconds: u64) {
        let faults = Faults {
            seed: 1,
            rules,
            ..Store::usual()
        };
        self.inject();
        self.fleet.store.faults().set(faults);
        self.lasting(seconds);
        self.fleet.store.faults().set(Store::usual());
        self.heal();
    }

    /// Both ways of some links are silent.
    pub(crate) fn silence<'p>(links: impl IntoIterator<Item = &'p frazil_proxy::Proxy>) {
        for link in links {
            link.set_both(Flow::HELD);
        }
    }

    /// Links work again.
    pub(crate) fn restore<'p>(links: impl IntoIterator<Item = &'p frazil_proxy::Proxy>) {
        for link in links {
            link.heal();
        }
    }

    /// Lets the link of a gateway to the store hold what goes one way, and waits for `time`.
    pub(crate) fn hold_store(&mut self, id: u32, way: Way, time: Duration) -> Result<()> {
        self.inject();
        if let Some(link) = &self.fleet.node(id)?.links.store {
            link.hold(way);
        }
        self.rest(time);
        Ok(())
    }

    /// Begins to read everything from the start, again and again.
    pub(crate) fn replay(&mut self) -> Result<()> {
        let bootstrap = self.fleet.bootstrap();
        self.replay = Some(Replay::start(&bootstrap, self.topic, self.load.timer)?);
        Ok(())
    }

    /// Restarts the compactor, which begins with a search for orphans, and notes what it deleted in
    /// this life and the last.
    pub(crate) fn collect_orphans(&mut self) -> Result<()> {
        const ORPHANS: &str = "frazil_compactor_orphaned_objects_total";
        let compactor = super::fleet::COMPACTOR;
        let earlier = self.fleet.node(compactor)?.metric(ORPHANS)?;
        self.fleet.node(compactor)?.terminate()?;
        self.start(compactor)?;
        let before = self.fleet.store.segments();
        self.seconds(5);
        let node = self.fleet.node(compactor)?;
        let orphans = earlier + node.metric(ORPHANS)?;
        self.notes
            .push(format!("{orphans} orphans collected, of {before} segments"));
        Ok(())
    }

    /// All gateways that there are.
    pub(crate) fn gateways(&self) -> Vec<u32> {
        self.fleet.ids(Role::Gateway)
    }
}
