// The cast of death_at_every_step_test.cc, and where it acts.
#pragma once

#include "world.h"

inline constexpr char kName[] = "the lock, with a name that does not fit into its entry";

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
  Ref more;
  proclock::PokeSeen seen;
};
inline Victim* the_victim;

inline void record_last_word() {
  if (the_victim->ref.slot == nullptr) return;
  the_victim->page->last_word.store(the_victim->ref.slot->word.plain()->load());
}
inline void die() {
  record_last_word();
  kill(getpid(), SIGKILL);
}

struct Stage {
  explicit Stage(const char* name) : segment(name), boss(name), ref(boss.open(kName)) {}

  // In the queue when this returns.
  void add_waiter(Mode mode, uint32_t flags = 0) {
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
  // Our shared hold waits to be upgraded; `by_ourselves`: because of another one of ours.
  void wait_to_upgrade(bool by_ourselves) {
    if (by_ourselves) {
      beside = boss.bind(ref, 4);
      CHECK_EQ(boss.acquire(beside, Mode::kShared, Turn::kFront), Try::kAcquired);
    }
    CHECK_EQ(upgrade(), Status::kAgain);
    upgrades = true;
  }
  Status upgrade() {
    return Member::unstalled([&] { return boss.arena->upgrade(ref, true, &boss.token); });
  }
  // Nobody else holds any more.
  void be_upgraded() {
    if (!upgrades) return;
    if (beside.slot != nullptr) {
      const Status status = boss.arena->release(beside);
      CHECK(ok(status) || (may_be_robbed && status == Status::kStolen));
      boss.unbind(beside);
    }
    if (was_robbed()) {
      CHECK_EQ(upgrade(), Status::kStolen);
      return;
    }
    // Tries only when it is told to, as an event loop does.
    CHECK(harness::eventually([&] {
      CHECK_EQ(Member::unstalled([&] { return boss.arena->take_poked(&boss.told); }), Status::kOk);
      if (!boss.was_told(ref)) return false;
      boss.told.clear();
      return ok(upgrade());
    }));
    if (!may_be_robbed) {
      page->oracle.leave(held);
      page->oracle.enter(Mode::kExclusive);
    }
    held = Mode::kExclusive;
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
  Ref beside;
  Mode async_mode = Mode::kShared;
  std::vector<pid_t> waiters;
  pid_t holder = 0;
  bool holds = false;
  Mode held = Mode::kShared;
  bool may_be_robbed = false;  // then others may be in beside us, once we are
  bool upgrades = false;
  bool abandoned = false;  // somebody is sure to end who held exclusively
};

struct Scenario {
  const char* name;
  bool attached;              // is the victim attached, with a slot of the lock, before it is counted?
  void (*setup)(Stage&);      // before the victim is there
  void (*prepare)(Victim&);   // the victim, not counted
  void (*meanwhile)(Stage&);  // after that
  void (*act)(Victim&);       // the victim, counted
};
