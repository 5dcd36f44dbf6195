// A process dies before every single step of every operation, one after another, and each time whoever lives must find a
// lock that is free, excludes, tells of an abandoned hold exactly if there was one, and has lost nothing.
//
// Each scenario is a play with a fixed cast, on a segment of its own, once per step. The *boss* lives: it sets the stage
// and checks at the end. The *victim* does the operation. *Waiters* are live processes in the queue that sleep without
// a timeout of less than the test's patience: a lost wake-up fails. In scenarios about recovery somebody is dead before.
// The scenario is over with the first step number that the operation does not reach any more. PROCLOCK_DEATH_STRIDE=3 takes
// every third step.
#include "world.h"

namespace {

constexpr char kName[] = "the lock, with a name that does not fit into its entry";

struct Page {
  std::atomic<int> prepared{0};
  std::atomic<int> go{0};
  std::atomic<uint64_t> last_word{0};  // of the victim's slot, as it was when it died
  std::atomic<uint32_t> granted{0};    // waiters that got the lock
  Oracle oracle;
};

struct Victim {
  Page* page;
  Member self;
  Ref ref;
};
Victim* the_victim;

void record_last_word() {
  if (the_victim->ref.slot == nullptr) return;
  the_victim->page->last_word.store(the_victim->ref.slot->word.plain()->load());
}
void die() {
  record_last_word();
  kill(getpid(), SIGKILL);
}

struct Stage {
  explicit Stage(const char* name) : segment(name), boss(name), ref(boss.open(kName)) {}

  // In the queue when this returns.
  void add_waiter(Mode mode, uint16_t flags = 0) {
    const size_t before = waiting();
    const char* name = segment;
    Page* shared = page;
    waiters.push_back(harness::start([=] {
      Member self(name);
      const Ref slot = self.open(kName);
      CHECK_EQ(acquire_waiting(self, slot, mode, flags), Status::kOk);
      shared->oracle.enter(mode);
      shared->granted.fetch_add(1);
      shared->oracle.leave(mode);
      self.release(slot);
      self.unbind(slot);
    }));
    CHECK(harness::eventually([&] { return waiting() > before; }));
  }
  size_t waiting() {
    std::vector<proclock::HolderInfo> infos;
    CHECK_EQ(Member::unstalled([&] { return boss.arena->snapshot(ref.lock_index, &infos); }), Status::kOk);
    return static_cast<size_t>(
        std::count_if(infos.begin(), infos.end(), [](const auto& info) { return info.pending; }));
  }

  // Somebody who attaches, gets a slot of the lock, and then ends in the middle of `act`, or after it.
  void add_dead(void (*act)(Member&, const Ref&)) {
    const char* name = segment;
    const pid_t pid = harness::start([=] {
      Member self(name);
      const Ref slot = self.open(kName);
      act(self, slot);
      kill(getpid(), SIGKILL);
    });
    CHECK(harness::killed(harness::join(pid)));
  }

  // Somebody who holds exclusively until killed.
  void add_holder() {
    const char* name = segment;
    Page* shared = page;
    holder = harness::start([=] {
      Member self(name);
      CHECK_EQ(self.acquire(self.open(kName), Mode::kExclusive), Try::kAcquired);
      shared->prepared.store(1);
      for (;;) pause();
    });
    CHECK(harness::eventually([&] { return page->prepared.load() == 1; }));
    page->prepared.store(0);
  }
  void kill_holder() {
    KILL_AND_JOIN(holder);
    abandoned = true;
  }

  void hold(Mode mode) {
    CHECK_EQ(boss.acquire(ref, mode), Try::kAcquired);
    if (!may_be_robbed) page->oracle.enter(mode);
    holds = true;
    held = mode;
  }
  bool was_robbed() const {
    return proclock::phase_of(ref.slot->word.load(std::memory_order_relaxed)) == Phase::kStolen;
  }
  void let_go() {
    if (!holds) return;
    if (!may_be_robbed) page->oracle.leave(held);
    holds = false;
    if (may_be_robbed && was_robbed()) {
      CHECK_EQ(boss.arena->release(ref), Status::kStolen);
      return;
    }
    CHECK(proclock::holds(ref.slot->word.load(std::memory_order_relaxed), held));
    boss.release(ref);
  }
  void add_async(Mode mode) {
    async = boss.bind(ref, 1);
    CHECK_EQ(boss.queue(async, mode, proclock::kSlotAsync), Status::kAgain);
    async_mode = mode;
  }

  const char* segment;
  Page* page = harness::shared<Page>();
  Member boss;
  Ref ref;
  Ref async;
  Mode async_mode = Mode::kShared;
  std::vector<pid_t> waiters;
  pid_t holder = 0;
  bool holds = false;
  Mode held = Mode::kShared;
  bool may_be_robbed = false;  // then others may be in beside us, once we are
  bool abandoned = false;      // somebody died holding exclusively before the victim came
};

struct Scenario {
  const char* name;
  bool attached;              // is the victim attached, with a slot of the lock, before it is counted?
  void (*setup)(Stage&);      // before the victim is there
  void (*prepare)(Victim&);   // the victim, not counted
  void (*meanwhile)(Stage&);  // after that
  void (*act)(Victim&);       // the victim, counted
};

// ---- who does what

void nothing(Stage&) {}
void idle(Victim&) {}
template <Mode mode>
void take(Victim& v) {
  CHECK_EQ(v.self.acquire(v.ref, mode), Try::kAcquired);
}
template <Mode mode>
void boss_holds(Stage& s) {
  s.hold(mode);
}
template <Mode mode>
void one_waits(Stage& s) {
  s.add_waiter(mode);
}
void readers_and_writer_wait(Stage& s) {
  s.add_waiter(Mode::kShared);
  s.add_waiter(Mode::kShared);
  s.add_waiter(Mode::kExclusive);
}
template <Mode mode>
void may_rob_boss(Stage& s) {
  s.may_be_robbed = true;
  s.hold(mode);
}
void steal(Victim& v) { v.self.steal(v.ref); }
void release(Victim& v) { CHECK_EQ(v.self.arena->release(v.ref), Status::kOk); }

template <Mode mode>
void somebody_died_holding(Stage& s) {
  s.add_dead([](Member& self, const Ref& slot) { CHECK_EQ(self.acquire(slot, mode), Try::kAcquired); });
  s.abandoned = mode == Mode::kExclusive;
}
void die_in_the_guard() {
  CHECK_EQ(TestPlatform::guards, 1);
  kill(getpid(), SIGKILL);
}
// A holder, in the middle of becoming a waiter as well.
void somebody_died_in_the_guard(Stage& s) {
  s.add_dead([](Member& self, const Ref& slot) {
    CHECK_EQ(self.acquire(slot, Mode::kExclusive), Try::kAcquired);
    const Ref more = self.bind(slot);
    TestPlatform::arm(8, die_in_the_guard);
    self.arena->enqueue(more, Mode::kShared, 0);
    CHECK(!"reached");
  });
  s.abandoned = true;
}
void recover_everybody(Victim& v) {
  for (uint32_t process = 1; process <= v.self.arena->processes_used(); process++) {
    CHECK_EQ(v.self.arena->recover_if_dead(process), Status::kOk);
  }
}
void exhaust_first_page_of_names(Stage& s) {
  // As many unused names as fit into the first page of entries: the next name takes the place of the oldest one.
  for (uint32_t n = 0; n < proclock::kPage / sizeof(proclock::Lock<TestPlatform>) - 1; n++) {
    s.boss.unbind(s.boss.open("a name that is given back, number " + std::to_string(n)));
  }
}
void fill_index(Stage& s) {
  // All buckets of the first page in use: the next name splits one.
  std::vector<Ref> refs;
  for (uint32_t n = 1; n < proclock::kBucketsMin; n++) refs.push_back(s.boss.open(std::to_string(n)));
  for (const Ref& ref : refs) s.boss.unbind(ref);
}
void open_new(Victim& v) {
  Ref fresh;
  CHECK_EQ(v.self.arena->open_lock(name_of("a new name, which is longer than what fits in"), 0, &fresh),
           Status::kOk);
}
void queue_and_react(Victim& v, Mode mode, Status expected) { CHECK_EQ(v.self.queue(v.ref, mode), expected); }

constexpr Mode kS = Mode::kShared;
constexpr Mode kX = Mode::kExclusive;

const Scenario kScenarios[] = {
    {"attach", false, nothing, idle, nothing,
     [](Victim& v) { CHECK_EQ(v.self.arena->attach(TestPlatform::self()), Status::kOk); }},
    {"detach", true, nothing, [](Victim& v) { v.self.unbind(v.ref); }, nothing,
     [](Victim& v) { CHECK_EQ(v.self.arena->detach(), Status::kOk); }},

    {"open a new name", true, nothing, idle, nothing, open_new},
    {"open a known name", true, nothing, idle, nothing,
     [](Victim& v) {
       Ref again;
       CHECK_EQ(v.self.arena->open_lock(name_of(kName), 0, &again), Status::kOk);
     }},
    {"open a name in the place of an unused one", true, exhaust_first_page_of_names, idle, nothing, open_new},
    {"open a name for which the index grows", true, fill_index, idle, nothing,
     [](Victim& v) {
       open_new(v);
       CHECK_EQ(v.self.arena->header().buckets.used.load(std::memory_order_relaxed),
                proclock::kBucketsMin + 1);
     }},
    {"bind", true, nothing, idle, nothing, [](Victim& v) { v.self.bind(v.ref); }},
    {"unbind", true, nothing, idle, nothing, [](Victim& v) { v.self.unbind(v.ref); }},
    {"unbind the last slot of a name", true, nothing,
     [](Victim& v) { v.ref = v.self.open("a name of the victim alone"); }, nothing,
     [](Victim& v) { v.self.unbind(v.ref); }},

    {"acquire shared", true, nothing, idle, nothing, take<kS>},
    {"acquire exclusive", true, nothing, idle, nothing, take<kX>},
    {"acquire shared beside a reader", true, boss_holds<kS>, idle, nothing, take<kS>},
    {"try exclusive in vain", true, boss_holds<kS>, idle, nothing,
     [](Victim& v) { CHECK_EQ(v.self.acquire(v.ref, kX), Try::kBusy); }},

    {"queue up exclusive behind a holder", true, boss_holds<kX>, idle, nothing,
     [](Victim& v) { queue_and_react(v, kX, Status::kAgain); }},
    {"queue up shared behind a holder", true, boss_holds<kX>, idle, nothing,
     [](Victim& v) { queue_and_react(v, kS, Status::kAgain); }},
    {"queue up behind a waiter", true,
     [](Stage& s) {
       s.hold(kX);
       s.add_waiter(kX);
     },
     idle, nothing, [](Victim& v) { queue_and_react(v, kX, Status::kAgain); }},
    {"queue up and get it, with waiters behind", true, boss_holds<kX>,
     [](Victim& v) { CHECK_EQ(v.self.arena->enqueue(v.ref, kS, 0), Status::kOk); },
     [](Stage& s) {
       s.add_waiter(kS);
       s.add_waiter(kX);
       s.let_go();
     },
     // The one behind was poked by the boss, and may be in already.
     [](Victim& v) { CHECK_EQ(v.self.react(v.ref, kS), Status::kOk); }},
    {"be granted exclusively, with waiters behind", true, boss_holds<kX>,
     [](Victim& v) { CHECK_EQ(v.self.arena->enqueue(v.ref, kX, 0), Status::kOk); },
     [](Stage& s) {
       s.add_waiter(kS);
       s.let_go();
     },
     [](Victim& v) {
       CHECK_EQ(v.self.react(v.ref, kX), Status::kOk);
       release(v);
     }},
    {"withdraw alone", true, boss_holds<kX>, [](Victim& v) { queue_and_react(v, kX, Status::kAgain); },
     nothing, [](Victim& v) { CHECK_EQ(v.self.arena->withdraw(v.ref), Status::kOk); }},
    {"withdraw at the front, where others fit in", true, boss_holds<kS>,
     [](Victim& v) { queue_and_react(v, kX, Status::kAgain); }, one_waits<kS>,
     [](Victim& v) { CHECK_EQ(v.self.arena->withdraw(v.ref), Status::kOk); }},
    {"withdraw after having been poked", true, boss_holds<kX>,
     [](Victim& v) { queue_and_react(v, kX, Status::kAgain); },
     [](Stage& s) {
       s.add_waiter(kX);
       s.let_go();
     },
     [](Victim& v) { CHECK_EQ(v.self.arena->withdraw(v.ref), Status::kOk); }},

    {"release shared", true, nothing, take<kS>, nothing, release},
    {"release exclusive", true, nothing, take<kX>, nothing, release},
    {"release exclusive to a writer", true, nothing, take<kX>, one_waits<kX>, release},
    {"release shared to a writer", true, nothing, take<kS>, one_waits<kX>, release},
    {"release exclusive to readers and a writer", true, nothing, take<kX>, readers_and_writer_wait, release},
    {"release to a waiter of another process's event loop", true, nothing, take<kX>,
     [](Stage& s) { s.add_async(kX); }, release},
    {"release to an event loop that sleeps", true, nothing, take<kX>,
     [](Stage& s) { s.add_waiter(kX, proclock::kSlotAsync); }, release},

    {"downgrade", true, nothing, take<kX>, nothing,
     [](Victim& v) { CHECK_EQ(v.self.arena->downgrade(v.ref), Status::kOk); }},
    {"downgrade with readers and a writer waiting", true, nothing, take<kX>, readers_and_writer_wait,
     [](Victim& v) { CHECK_EQ(v.self.arena->downgrade(v.ref), Status::kOk); }},
    {"downgrade, and release it", true, nothing, take<kX>, one_waits<kX>,
     [](Victim& v) {
       CHECK_EQ(v.self.arena->downgrade(v.ref), Status::kOk);
       release(v);
     }},

    {"steal what nobody holds", true, nothing, idle, nothing, steal},
    {"steal from a reader", true, may_rob_boss<kS>, idle, nothing, steal},
    {"steal from a writer", true, may_rob_boss<kX>, idle, nothing, steal},
    {"steal from a writer, with readers and a writer waiting", true, may_rob_boss<kX>, idle,
     readers_and_writer_wait,
     [](Victim& v) {
       steal(v);
       release(v);
     }},
    {"steal from a dead writer", true, nothing, idle, somebody_died_holding<kX>, steal},
    {"release what was stolen", true, nothing, take<kX>,
     [](Stage& s) {
       s.boss.steal(s.ref);
       s.page->oracle.enter(kX);
       s.holds = true;
       s.held = kX;
     },
     [](Victim& v) { CHECK_EQ(v.self.arena->release(v.ref), Status::kStolen); }},

    {"take pokes off the doorbell", true, boss_holds<kX>,
     [](Victim& v) { CHECK_EQ(v.self.queue(v.ref, kX, proclock::kSlotAsync), Status::kAgain); },
     [](Stage& s) {
       s.add_waiter(kX);
       s.let_go();
     },
     [](Victim& v) {
       std::vector<uint32_t> slots;
       v.self.arena->take_poked(&slots);
       CHECK_EQ(slots.size(), 1u);
     }},
    {"pass over a waiter that does not react", true,
     [](Stage& s) {
       s.hold(kX);
       s.add_async(kX);
       s.add_waiter(kX);
       s.let_go();
     },
     [](Victim&) { TestPlatform::ahead_ns = 2 * Member::Arena::kUnresponsiveNs; }, nothing,
     [](Victim& v) { CHECK_EQ(v.self.arena->open_barrier_if_overdue(v.ref.lock_index), Status::kOk); }},
    {"take a snapshot", true,
     [](Stage& s) {
       s.hold(kX);
       s.add_waiter(kX);
     },
     idle, nothing,
     [](Victim& v) {
       std::vector<proclock::HolderInfo> infos;
       CHECK_EQ(v.self.arena->snapshot(v.ref.lock_index, &infos), Status::kOk);
     }},

    // Double deaths.
    {"recover from a dead writer", true, nothing, idle, somebody_died_holding<kX>, recover_everybody},
    {"recover from a dead reader, with a live one", true, boss_holds<kS>, idle, somebody_died_holding<kS>,
     recover_everybody},
    {"recover from a dead writer that others wait for", true,
     [](Stage& s) {
       s.add_holder();
       s.add_waiter(kS);
       s.add_waiter(kX);
     },
     idle, [](Stage& s) { s.kill_holder(); }, recover_everybody},
    {"recover from a dead waiter", true, boss_holds<kS>, idle,
     [](Stage& s) {
       s.add_dead([](Member& self, const Ref& slot) { CHECK_EQ(self.queue(slot, kX), Status::kAgain); });
     },
     recover_everybody},
    {"look at a lock with a dead writer", true, nothing, idle, somebody_died_holding<kX>,
     [](Victim& v) { CHECK_EQ(v.self.arena->look(v.ref.lock_index), Status::kOk); }},
    {"rebuild after a death in the guard", true, nothing, idle, somebody_died_in_the_guard,
     recover_everybody},
    {"rebuild a queue", true,
     [](Stage& s) {
       s.hold(kX);
       s.add_waiter(kX);
       s.add_waiter(kS);
       s.add_waiter(kS, proclock::kSlotFair);
     },
     idle,
     [](Stage& s) {
       s.add_dead([](Member& self, const Ref& slot) {
         TestPlatform::arm(8, die_in_the_guard);
         self.arena->enqueue(slot, kX, 0);
         CHECK(!"reached");
       });
     },
     recover_everybody},
    {"rebuild with a live reader and names of every length", true,
     [](Stage& s) {
       s.boss.unbind(s.boss.open(std::string(1000, 'x')));
       s.boss.unbind(s.boss.open(""));
       s.hold(kS);
     },
     idle,
     [](Stage& s) {
       s.add_dead([](Member& self, const Ref& slot) {
         CHECK_EQ(self.acquire(slot, kS), Try::kAcquired);
         TestPlatform::arm(20, die_in_the_guard);
         Ref other;
         self.arena->open_lock(name_of(std::string(300, 'y')), 0, &other);
         CHECK(!"reached");
       });
     },
     recover_everybody},
    {"finish the recovery that another one began", true, boss_holds<kS>, idle,
     [](Stage& s) {
       s.add_dead([](Member& self, const Ref& slot) { CHECK_EQ(self.acquire(slot, kS), Try::kAcquired); });
       // As V1 leaves it.
       s.ref.lock->gate.fetch_or(proclock::kGateRecovering, std::memory_order_seq_cst);
     },
     [](Victim& v) { CHECK_EQ(v.self.arena->finish_recovery(v.ref.lock_index), Status::kOk); }},
};

// ---- one performance

// After the death. Everybody who lives goes on; then nothing may be missing.
void check_aftermath(Stage& s) {
  Member& boss = s.boss;
  const bool abandoned = s.abandoned || proclock::holds(s.page->last_word.load(), Mode::kExclusive);
  boss.look_at_all();
  if (s.may_be_robbed && s.was_robbed()) {
    // It is told even if the thief died in between.
    CHECK_EQ(boss.arena->take_poked(&boss.told), Status::kOk);
    CHECK(boss.was_told(s.ref));
    boss.told.clear();
  } else if (s.holds) {  // and still does, whatever was rebuilt around it
    const Ref probe = boss.bind(s.ref, 3);
    CHECK_EQ(boss.acquire(probe, Mode::kExclusive, Turn::kFront), Try::kBusy);
    boss.unbind(probe);
  }
  s.let_go();
  if (s.async.slot != nullptr) {
    // Tries only when it is told to, as an event loop does.
    CHECK(harness::eventually([&] {
      CHECK_EQ(Member::unstalled([&] { return boss.arena->take_poked(&boss.told); }), Status::kOk);
      if (!boss.was_told(s.async)) return false;
      boss.told.clear();
      const Status status = boss.react(s.async, s.async_mode);
      CHECK(status == Status::kOk || status == Status::kAgain);
      return status == Status::kOk;
    }));
    s.page->oracle.enter(s.async_mode);
    s.page->oracle.leave(s.async_mode);
    boss.release(s.async);
    boss.unbind(s.async);
  }
  for (const pid_t waiter : s.waiters) JOIN_OK(waiter);
  CHECK_EQ(s.page->granted.load(), s.waiters.size());
  boss.look_at_all();  // and those waiters are gone

  const uint64_t token = s.ref.lock->token.load(std::memory_order_relaxed);
  CHECK_EQ(boss.acquire(s.ref, Mode::kExclusive), Try::kAcquired);
  CHECK_EQ(s.ref.lock->token.load(std::memory_order_relaxed), token + 1);
  CHECK_EQ(s.ref.lock->abandoned.load(std::memory_order_relaxed), abandoned ? 1u : 0u);
  const Ref other = boss.bind(s.ref, 2);
  CHECK_EQ(boss.acquire(other, Mode::kExclusive), Try::kBusy);
  CHECK_EQ(boss.acquire(other, Mode::kShared), Try::kBusy);
  CHECK_EQ(Member::unstalled([&] { return boss.arena->set_abandoned(s.ref, false); }), Status::kOk);
  boss.release(s.ref);
  CHECK_EQ(boss.acquire(s.ref, Mode::kShared), Try::kAcquired);
  CHECK_EQ(boss.acquire(other, Mode::kShared), Try::kAcquired);
  {
    Member newcomer(s.segment);
    const Ref slot = newcomer.open(kName);
    CHECK_EQ(slot.lock_index, s.ref.lock_index);
    CHECK_EQ(newcomer.acquire(slot, Mode::kExclusive), Try::kBusy);
    CHECK_EQ(newcomer.acquire(slot, Mode::kShared), Try::kAcquired);
    newcomer.release(slot);
    newcomer.unbind(slot);
  }
  boss.release(s.ref);
  boss.release(other);
  boss.unbind(other);
  boss.unbind(s.ref);

  const Census census = audit(boss);
  CHECK_EQ(census.processes, 1u);
  CHECK_EQ(census.slots, 0u);
  CHECK_EQ(census.queued, 0u);
  CHECK_EQ(census.retired, 0u);
  CHECK_EQ(census.storages, census.locks);
  CHECK_EQ(s.page->oracle.violations.load(), 0u);
}

// False: the victim got through without having reached the step.
bool perform(const Scenario& scenario, uint64_t step) {
  harness::context_step = static_cast<int64_t>(step);
  harness::Segment segment;
  Stage stage(segment.name());
  scenario.setup(stage);
  Page* page = stage.page;
  const pid_t victim = harness::start([&] {
    Victim v;
    v.page = page;
    the_victim = &v;
    if (scenario.attached) {
      CHECK_EQ(v.self.enter(segment.name()), Status::kOk);
      v.ref = v.self.open(kName);
    } else {
      proclock::OpenFailure failure;
      CHECK_EQ(v.self.memory.open(segment.name(), -1, &failure), Status::kOk);
      v.self.arena = std::make_unique<Member::Arena>(v.self.memory, v.self);
    }
    scenario.prepare(v);
    page->prepared.store(1);
    CHECK(harness::eventually([&] { return page->go.load() == 1; }));
    TestPlatform::arm(step, die);
    scenario.act(v);
    TestPlatform::disarm();
    record_last_word();
    _exit(0);  // as dead as if it had been killed, after the last step
  });
  CHECK(harness::eventually([&] { return page->prepared.load() == 1; }));
  scenario.meanwhile(stage);
  page->go.store(1);
  const int status = harness::join(victim);
  CHECK(harness::killed(status) || harness::ended_well(status));
  check_aftermath(stage);
  munmap(page, sizeof *page);
  return harness::killed(status);
}

TEST("a death at any step of any operation wedges nothing, opens nothing and loses nothing", 300) {
  const uint64_t stride = harness::number_from("PROCLOCK_DEATH_STRIDE", 1);
  uint64_t pairs = 0;
  const uint64_t begun = harness::now_ms();
  for (const Scenario& scenario : kScenarios) {
    harness::context = scenario.name;
    uint64_t deaths = 0;
    while (perform(scenario, 1 + deaths * stride)) deaths++;
    pairs += deaths + 1;
    printf("  %4llu steps of: %s\n", static_cast<unsigned long long>(deaths), scenario.name);
    fflush(stdout);
  }
  printf("  %llu (operation, step) pairs in %llu ms\n", static_cast<unsigned long long>(pairs),
         static_cast<unsigned long long>(harness::now_ms() - begun));
}

}  // namespace
