// SPDX-License-Identifier: GPL-2.0

//! [`Device`]: one virtio-ism device, from the check of its configuration to its end.
//!
//! Invariant: a `Device` exists only for a configuration that was checked, and lives longer than
//! everything that can call it: C ends callbacks, works and the thread before it drops it.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use kernel::prelude::*;

use crate::{
    abi::{
        self, command, Config, HelloReply, HelloRequest, VlanRequest, F_MOVE, F_WINDOW, MAGIC,
        MAX_DMBS, MIN_DMB_LEN, VERSION, WINDOW_ALIGN,
    },
    control::Control,
    copied::Moves,
    counters::{Counters, COUNTED},
    dmb::AdminState,
    events::Events,
    grants::Grants,
    local::{self, Local},
    memory::Window,
    native::{self, ExtentPages, Level, Native, Queue, Work},
    peers::{Peers, RESERVED_VLAN},
    poll::{Poller, Timing},
    signal::Signals,
    sync::{Admin, Spin, SpinId},
    watchdog::Watchdog,
};

/// VIRTIO_F_VERSION_1.
const F_VERSION_1: u32 = 32;

/// How long the device may take to unmap its window: steps, and milliseconds of each.
const UNMAP_STEPS: u32 = 100;
const UNMAP_STEP_MS: u32 = 10;

macro_rules! log_err {
    ($device:expr, $($message:tt)*) => {
        $device.native.log($crate::native::Level::Err, format_args!($($message)*))
    };
}
macro_rules! log_warn {
    ($device:expr, $($message:tt)*) => {
        $device.native.log($crate::native::Level::Warn, format_args!($($message)*))
    };
}
macro_rules! log_info {
    ($device:expr, $($message:tt)*) => {
        $device.native.log($crate::native::Level::Info, format_args!($($message)*))
    };
}
pub(crate) use {log_err, log_info, log_warn};

/// One device.
pub(crate) struct Device {
    pub(crate) native: Native,
    pub(crate) config: Config,
    /// `None`: every pair is in copied mode.
    pub(crate) window: Option<Window>,
    pub(crate) control: Control,
    pub(crate) events: Spin<Events>,
    pub(crate) signals: Spin<Signals>,
    /// Made when the first peer in copied mode is met.
    pub(crate) moves: Spin<Option<Moves>>,
    pub(crate) local: Spin<Local>,
    pub(crate) grants: Spin<Grants>,
    pub(crate) peers: Spin<Peers>,
    /// VLANs that the device is not told of yet: id, and whether to join or to leave.
    vlans: Spin<KVec<(u16, bool)>>,
    pub(crate) poller: Poller,
    pub(crate) watchdog: Watchdog,
    pub(crate) counters: Counters,
    pub(crate) dead: AtomicBool,
    /// Dead only until it was started again.
    pub(crate) restart: AtomicBool,
    /// DMBs that this member may own; 0 before HELLO is answered.
    limit: AtomicU32,
    /// Last: extents are dropped after all that is in them.
    pub(crate) admin: Admin<AdminState>,
}

/// Reads and checks the configuration.
fn config(native: Native) -> Result<Config> {
    let mut bytes = [0; Config::SIZE];
    native.config_read(&mut bytes);
    let config = Config::from_bytes(&bytes).ok_or(EIO)?;
    let refuse = |what: core::fmt::Arguments<'_>| {
        native.log(Level::Err, what);
        Err(ENODEV)
    };
    if config.magic != MAGIC {
        return refuse(format_args!(
            "not an ISM device: magic {:#010x}, expected {:#010x}",
            config.magic, MAGIC
        ));
    }
    if config.version != VERSION {
        return refuse(format_args!(
            "device version {} is not supported, this driver speaks version {}",
            config.version, VERSION
        ));
    }
    if !(abi::FABRIC_ID_MIN..=abi::FABRIC_ID_MAX).contains(&config.fabric_id) {
        return refuse(format_args!(
            "fabric id {:#06x} is not one of an emulated ISM device ({:#06x}-{:#06x})",
            config.fabric_id,
            abi::FABRIC_ID_MIN,
            abi::FABRIC_ID_MAX
        ));
    }
    if config.max_dmbs == 0 || config.max_dmb_len < MIN_DMB_LEN {
        return refuse(format_args!(
            "device offers no usable DMBs (at most {} of {} bytes)",
            config.max_dmbs, config.max_dmb_len
        ));
    }
    Ok(config)
}

/// Negotiates: refuses what cannot work, and gives up the window if DMBs in it would have no
/// struct pages, which net/smc and splice need.
pub(crate) fn validate(native: Native) -> Result {
    if !native.has_feature(F_VERSION_1) {
        native.log(
            Level::Err,
            format_args!("device lacks VIRTIO_F_VERSION_1 (a legacy device?)"),
        );
        return Err(ENODEV);
    }
    let config = config(native)?;
    if native.has_feature(F_WINDOW) {
        if let Err(why) = try_window(native, &config) {
            native.log(
                Level::Warn,
                format_args!("no window, data is copied: {why}"),
            );
            native.drop_feature(F_WINDOW);
        }
    }
    if !native.has_feature(F_WINDOW) && (!native.has_feature(F_MOVE) || config.max_move_len == 0) {
        native.log(
            Level::Err,
            format_args!("device offers neither a usable window nor copied mode"),
        );
        return Err(ENODEV);
    }
    Ok(())
}

/// Whether DMBs in the window can be used, by making pages for a piece of it.
fn try_window(native: Native, config: &Config) -> Result<(), &'static str> {
    if !native::pages_possible() {
        return Err("this kernel has no CONFIG_ZONE_DEVICE");
    }
    let len = native
        .window_find()
        .ok_or("the device has no shared memory region 1")?;
    if config.window_size < WINDOW_ALIGN || config.window_size > len {
        return Err("the region is smaller than the device says");
    }
    if config.chunk_size == 0 || config.chunk_size % WINDOW_ALIGN != 0 {
        return Err("its extents are not multiples of 2 MiB");
    }
    ExtentPages::map(native, 0, WINDOW_ALIGN)
        .map(drop)
        .map_err(|_| "struct pages cannot be made at its address")
}

impl Device {
    /// Everything that needs no answer of the device.
    pub(crate) fn new(native: Native) -> Result<Self> {
        let config = config(native)?;
        let mut window = None;
        if native.has_feature(F_WINDOW) {
            // Read anew since `validate`.
            let len = native.window_find().ok_or(EIO)?;
            if config.window_size < WINDOW_ALIGN || config.window_size > len {
                return Err(EIO);
            }
            window = Some(Window::map(native, config.window_size)?);
        }
        native.queues_find()?;
        let signals = Signals::new(native.queue_size(Queue::Signal))?;
        let events = Events::new(native.queue_size(Queue::Event))?;
        Ok(Self {
            native,
            window,
            control: Control::new(native)?,
            events: Spin::new(native, SpinId::Events, events),
            signals: Spin::new(native, SpinId::Signals, signals),
            moves: Spin::new(native, SpinId::Moves, None),
            local: Spin::new(
                native,
                SpinId::Local,
                Local::new(config.max_dmbs.min(MAX_DMBS))?,
            ),
            grants: Spin::new(native, SpinId::Grants, Grants::new()?),
            peers: Spin::new(native, SpinId::Peers, Peers::new()),
            vlans: Spin::new(native, SpinId::Vlans, KVec::new()),
            poller: Poller::new(Spin::new(native, SpinId::Poll, Timing::new())),
            watchdog: Watchdog::new(),
            counters: Counters::new(),
            dead: AtomicBool::new(false),
            restart: AtomicBool::new(false),
            limit: AtomicU32::new(0),
            admin: Admin::new(native, AdminState::new()),
            config,
        })
    }

    /// After DRIVER_OK: begins to use the device. Sleeps.
    pub(crate) fn start(&self) -> Result {
        {
            let _signals = self.signals.lock();
            self.native.callbacks_off(Queue::Signal);
        }
        self.start_events()?;
        self.native.poller_start()?;
        self.join()
    }

    /// Says hello and joins dibs, at first or again. Sleeps.
    pub(crate) fn join(&self) -> Result {
        let hello = self.hello()?;
        self.limit.store(hello.max_dmbs, Ordering::Relaxed);
        self.start_polling();
        self.watch();
        self.native.dibs_add(&self.config.gid)?;
        log_info!(
            self,
            "fabric {:#06x}, {}, up to {} DMBs of {} KiB for {} peers",
            self.config.fabric_id,
            if self.window.is_some() {
                "window mapped"
            } else {
                "data is copied by the device"
            },
            self.dmb_limit(),
            self.config.max_dmb_len >> 10,
            hello.max_peers
        );
        Ok(())
    }

    fn hello(&self) -> Result<HelloReply> {
        let request = HelloRequest {
            version: VERSION,
            reserved: [0; 6],
        };
        let mut reply = [0; HelloReply::SIZE];
        let answer = self.call(command::HELLO, &request.to_bytes(), &mut reply);
        if let Err(failure) = &answer {
            log_err!(self, "device did not accept HELLO: {:?}", failure);
        }
        answer?;
        HelloReply::from_bytes(&reply).ok_or(EIO)
    }

    /// Whether the device has to know this driver: between the two HELLOs.
    pub(crate) fn has_joined(&self) -> bool {
        self.limit.load(Ordering::Relaxed) != 0
    }

    /// DMBs that this member may own; indices are below it.
    pub(crate) fn dmb_limit(&self) -> u32 {
        let limit = self.limit.load(Ordering::Relaxed);
        limit.min(self.config.max_dmbs).min(MAX_DMBS)
    }

    /// Gives everything back while the device can still do so orderly: QEMU 11.1 loses track of
    /// windows that are mapped when a device is reset, and crashes when it is started again.
    /// `pipes`: wait for those who still read DMBs. Sleeps.
    pub(crate) fn leave(&self, pipes: bool) {
        let marks = self.local.lock().take_pages();
        if pipes {
            self.release_extents();
        } else {
            self.local.lock().leave_window();
        }
        if self.is_dead() {
            return;
        }
        if let Some(window) = self.window.as_ref() {
            local::mark(window, &marks);
        }
        // It answers NOT_READY to what waits.
        self.limit.store(0, Ordering::Relaxed);
        // Forgets all that came before it. A failure leaves the reset.
        if self.hello().is_err() {
            return;
        }
        // The device may unmap after it has answered.
        for _ in 0..UNMAP_STEPS {
            let window = self.window.as_ref();
            if !window.is_some_and(|window| local::any_marked(window, &marks)) {
                return;
            }
            native::sleep_ms(UNMAP_STEP_MS);
        }
        log_warn!(self, "the device keeps its window mapped");
    }

    /// Ends all use of the device and of the window. It is out of dibs, or the machine goes
    /// down; a reset follows. Sleeps.
    pub(crate) fn quiesce(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.give_up_answers();
        // Whoever did not see it is done now.
        native::wait_for_readers();
        drop(self.local.lock());
    }

    /// dibs: joins or leaves a VLAN. Called with interrupts off, so the device is told later;
    /// what it answers would change nothing, for it checks VLANs itself.
    pub(crate) fn vlan(&self, vlan_id: u64, join: bool) -> Result {
        if vlan_id == u64::from(RESERVED_VLAN) {
            return Ok(());
        }
        let id = u16::try_from(vlan_id).ok().filter(|id| *id < 4095);
        let id = id.ok_or(EINVAL)?;
        self.vlans.lock().push((id, join), GFP_ATOMIC)?;
        self.native.work_queue(Work::Vlan, 0);
        Ok(())
    }

    /// Tells the device of VLANs. Sleeps.
    pub(crate) fn tell_vlans(&self) {
        loop {
            let Some((vlan_id, join)) = self.vlans.lock().remove(0).ok() else {
                return;
            };
            let request = VlanRequest {
                vlan_id,
                reserved: [0; 6],
            };
            let command = match join {
                true => command::ADD_VLAN,
                false => command::DEL_VLAN,
            };
            if let Err(failure) = self.call(command, &request.to_bytes(), &mut []) {
                log_warn!(self, "VLAN {}: the device said {:?}", vlan_id, failure);
            }
        }
    }

    /// A counter or state by its number in driver.c.
    pub(crate) fn counter(&self, number: usize) -> u64 {
        const DMBS: usize = COUNTED;
        const GRANTS: usize = COUNTED + 1;
        const BUDGET: usize = COUNTED + 2;
        const DEAD: usize = COUNTED + 3;
        match number {
            DMBS => self.local.lock().used().into(),
            GRANTS => self.grants.lock().len() as u64,
            BUDGET => self.poller.budget_us(),
            DEAD => self.is_dead().into(),
            number => self.counters.get(number).unwrap_or(0),
        }
    }
}
