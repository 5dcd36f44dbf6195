// What is done in death_at_every_step_test.cc: who sets the stage, and what the victim does.
#pragma once

#include "death_stage.h"

inline void nothing(Stage&) {}
inline void idle(Victim&) {}
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
inline void readers_and_writer_wait(Stage& s) {
  s.add_waiter(Mode::kShared);
  s.add_waiter(Mode::kShared);
  s.add_waiter(Mode::kExclusive);
}
// The victim holds exclusively, and does not release any more.
inline void left_abandoned(Stage& s) { s.abandoned = true; }
template <Mode mode>
void may_rob_boss(Stage& s) {
  s.may_be_robbed = true;
  s.hold(mode);
}
inline void writer_and_reader_wait(Stage& s) {
  s.add_waiter(Mode::kExclusive);
  s.add_waiter(Mode::kShared);
}
inline void upgrade(Victim& v, Status expected) {
  CHECK_EQ(v.self.arena->upgrade(v.ref, true, &v.self.token), expected);
}
inline void waits_to_upgrade(Victim& v) {
  take<Mode::kShared>(v);
  upgrade(v, Status::kAgain);
}
inline void steal(Victim& v) { v.self.steal(v.ref); }
inline void release(Victim& v) { CHECK_EQ(v.self.arena->release(v.ref), Status::kOk); }

template <Mode mode>
void somebody_died_holding(Stage& s) {
  s.add_dead([](Member& self, const Ref& slot) { CHECK_EQ(self.acquire(slot, mode), Try::kAcquired); });
  s.abandoned = mode == Mode::kExclusive;
}
inline void die_inside() {
  CHECK(TestPlatform::is_inside_latch());
  kill(getpid(), SIGKILL);
}
// A holder, in the middle of becoming a waiter as well.
inline void somebody_died_inside(Stage& s) {
  s.add_dead([](Member& self, const Ref& slot) {
    CHECK_EQ(self.acquire(slot, Mode::kExclusive), Try::kAcquired);
    const Ref more = self.bind(slot);
    TestPlatform::arm(8, die_inside);
    self.arena->enqueue(more, Mode::kShared, 0);
    CHECK(!"reached");
  });
  s.abandoned = true;
}
inline void recover_everybody(Victim& v) {
  for (uint32_t process = 1; process <= v.self.arena->processes_used(); process++) {
    CHECK_EQ(v.self.arena->recover_if_dead(process), Status::kOk);
  }
}
inline void look_around(Victim& v) {
  CHECK_EQ(v.self.arena->open_barrier_if_overdue(v.ref.lock_index, &v.seen), Status::kOk);
}
// Each turn of the detector asks about all of the few processes that there are.
inline void take_a_turn(Victim& v) {
  proclock::ScanSeen seen;
  seen.word = v.self.arena->header().scan.load(std::memory_order_relaxed);
  v.self.arena->want(v.ref.lock_index);
  CHECK_EQ(v.self.arena->tick(&seen), Status::kOk);
}
inline void end_thread(Victim& v) { v.self.end_thread({v.ref}); }
inline void exhaust_first_page_of_names(Stage& s) {
  // As many unused names as fit into the first page of entries: the next name takes the place of the oldest one.
  for (uint32_t n = 0; n < proclock::kPage / sizeof(proclock::Lock<TestPlatform>) - 1; n++) {
    s.boss.unbind(s.boss.open("a name that is given back, number " + std::to_string(n)));
  }
}
inline void fill_index(Stage& s) {
  // All buckets of the first page in use: the next name splits one.
  std::vector<Ref> refs;
  for (uint32_t n = 1; n < proclock::kBucketsMin; n++) refs.push_back(s.boss.open(std::to_string(n)));
  for (const Ref& ref : refs) s.boss.unbind(ref);
}
inline void open_new(Victim& v) {
  Ref fresh;
  CHECK_EQ(v.self.arena->open_lock(name_of("a new name, which is longer than what fits in"), 0, &fresh),
           Status::kOk);
}
inline void queue_and_react(Victim& v, Mode mode, Status expected) {
  CHECK_EQ(v.self.queue(v.ref, mode), expected);
}

constexpr Mode kS = Mode::kShared;
constexpr Mode kX = Mode::kExclusive;

inline const Scenario kScenarios[] = {
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

    {"upgrade", true, nothing, take<kS>, nothing, [](Victim& v) { upgrade(v, Status::kOk); }},
    {"upgrade with a writer and a reader waiting", true, nothing, take<kS>, writer_and_reader_wait,
     [](Victim& v) { upgrade(v, Status::kOk); }},
    {"upgrade, and release it", true, nothing, take<kS>, one_waits<kX>,
     [](Victim& v) {
       upgrade(v, Status::kOk);
       release(v);
     }},
    {"begin to wait for an upgrade, with a writer and a reader waiting", true, boss_holds<kS>, take<kS>,
     writer_and_reader_wait, [](Victim& v) { upgrade(v, Status::kAgain); }},
    {"be upgraded when the last reader has released", true, boss_holds<kS>, waits_to_upgrade,
     [](Stage& s) {
       s.add_waiter(kS);
       s.let_go();
     },
     [](Victim& v) { upgrade(v, Status::kOk); }},
    {"give up an upgrade, with a reader waiting", true, boss_holds<kS>, waits_to_upgrade, one_waits<kS>,
     [](Victim& v) { CHECK_EQ(v.self.arena->withdraw(v.ref), Status::kOk); }},
    {"be refused an upgrade, and release", true, boss_holds<kS>, take<kS>,
     [](Stage& s) {
       s.wait_to_upgrade(false);
       s.add_waiter(kS);
     },
     [](Victim& v) {
       upgrade(v, Status::kUpgrading);
       release(v);
     }},
    {"end the thread of a reader that waits to be upgraded", true, boss_holds<kS>, waits_to_upgrade,
     one_waits<kS>, end_thread},

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
    {"steal from a reader that waits to be upgraded, with a reader waiting", true, may_rob_boss<kS>, idle,
     [](Stage& s) {
       s.wait_to_upgrade(true);
       s.add_waiter(kS);
     },
     steal},
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
     [](Victim& v) {
       look_around(v);  // sees the poke for the first time
       TestPlatform::ahead_ns = 2 * Member::Arena::kUnresponsiveNs;
     },
     nothing, look_around},
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

    // The end of a thread.
    {"end a thread that holds exclusively", true, nothing, take<kX>, left_abandoned, end_thread},
    {"end a thread that holds exclusively, with a writer waiting", true, nothing, take<kX>,
     [](Stage& s) {
       s.add_waiter(kX);
       left_abandoned(s);
     },
     end_thread},
    {"end a thread that reads beside another reader, with a writer waiting", true, boss_holds<kS>, take<kS>,
     one_waits<kX>, end_thread},
    {"end a thread that waits, and another one that reads", true, nothing,
     [](Victim& v) {
       v.more = v.self.bind(v.ref);
       CHECK_EQ(v.self.acquire(v.more, kS), Try::kAcquired);
       queue_and_react(v, kX, Status::kAgain);
     },
     one_waits<kS>, [](Victim& v) { v.self.end_thread({v.ref, v.more}); }},
    {"recover what a thread has left that ended while the latch was stalled", true, nothing,
     [](Victim& v) {
       take<kX>(v);
       v.self.arena->leave(v.ref);
     },
     left_abandoned, [](Victim& v) { CHECK_EQ(v.self.arena->recover_left(), Status::kOk); }},

    // Double deaths.
    {"take a turn of the detector, in which a dead writer is found", true, nothing, idle,
     somebody_died_holding<kX>, take_a_turn},
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
    {"rebuild after a death in the latch", true, nothing, idle, somebody_died_inside, recover_everybody},
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
         TestPlatform::arm(8, die_inside);
         self.arena->enqueue(slot, kX, 0);
         CHECK(!"reached");
       });
     },
     recover_everybody},
    {"recover from a dead reader that an upgrade waits for", true, boss_holds<kS>, idle,
     [](Stage& s) {
       somebody_died_holding<kS>(s);
       s.wait_to_upgrade(false);
     },
     recover_everybody},
    {"recover from a dead reader that waited to be upgraded", true, boss_holds<kS>, idle,
     [](Stage& s) {
       s.add_dead([](Member& self, const Ref& slot) {
         uint64_t token;
         CHECK_EQ(self.acquire(slot, kS), Try::kAcquired);
         CHECK_EQ(self.arena->upgrade(slot, true, &token), Status::kAgain);
       });
     },
     recover_everybody},
    {"rebuild a queue with an upgrade ahead of it", true,
     [](Stage& s) {
       s.hold(kS);
       s.add_waiter(kX);
       s.wait_to_upgrade(true);
       s.add_waiter(kS);
     },
     idle,
     [](Stage& s) {
       s.add_dead([](Member& self, const Ref& slot) {
         TestPlatform::arm(8, die_inside);
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
         TestPlatform::arm(20, die_inside);
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
