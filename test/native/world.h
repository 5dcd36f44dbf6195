// What the tests of the core share: an attached process, a synchronous wait as the client makes it, and an oracle of who
// holds that is outside the lock.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "harness.h"
#include "test_platform.h"
// After the core.
#include "auditor.h"

using proclock::Mode;
using proclock::Name;
using proclock::Phase;
using proclock::Status;
using proclock::Try;
using proclock::Turn;

inline Name name_of(const std::string& text) {
  return {text.data(), static_cast<uint32_t>(text.size()), false};
}

// One attached process. Several in one operating-system process behave as several, as far as liveness goes: each has
// its own open file description, and closing it (vanish) is what the death of a process looks like to others.
struct Member final : proclock::PokeSink {
  using P = TestPlatform;
  using Arena = proclock::Arena<P>;
  using SlotRef = Arena::SlotRef;

  explicit Member(const char* segment) {
    CHECK_EQ(unstalled([&] { return enter(segment); }), Status::kOk);
  }
  Member() = default;
  // A process entry that is left to be found dead is left on purpose, through vanish().
  ~Member() {
    if (arena != nullptr) leave();
  }

  Status enter(const char* segment) {
    proclock::OpenFailure failure;
    Status status = memory.open(segment, -1, &failure);
    if (!ok(status)) return status;
    arena = std::make_unique<Arena>(memory, *this);
    status = arena->attach(P::self());
    memory.attached();
    if (!ok(status)) vanish();
    return status;
  }
  void leave() {
    const Status status = unstalled([&] { return arena->detach(); });
    CHECK(status == Status::kOk || (status == Status::kBusy && has_slots()));  // then it is found dead
    vanish();
  }
  bool has_slots() const {
    return BasicAuditor<P>(memory.base()).process(arena->self()).slots_head.load(std::memory_order_relaxed) !=
           0;
  }
  void vanish() {
    arena.reset();
    memory.reset();
  }

  SlotRef open(const std::string& name, uint32_t thread = 0) {
    SlotRef ref;
    CHECK_EQ(unstalled([&] { return arena->open_lock(name_of(name), thread, &ref); }), Status::kOk);
    return ref;
  }
  SlotRef bind(const SlotRef& of, uint32_t thread = 0) {
    SlotRef ref;
    CHECK_EQ(unstalled([&] { return arena->bind(of.lock_index, thread, &ref); }), Status::kOk);
    return ref;
  }
  Try acquire(const SlotRef& ref, Mode mode, Turn turn = Turn::kMayOvertake) {
    return arena->try_acquire(ref, mode, turn, &token);
  }
  // Queues, and makes the first try, as the client does. kAgain: waits.
  Status queue(const SlotRef& ref, Mode mode, uint32_t flags = 0) {
    const Status status = unstalled([&] { return arena->enqueue(ref, mode, flags); });
    return ok(status) ? react(ref, mode) : status;
  }
  Status react(const SlotRef& ref, Mode mode) {
    const Status status = unstalled([&] { return arena->react(ref, mode, &token); });
    return ok(status) ? unstalled([&] { return arena->settle_grant(ref); }) : status;
  }
  // Again, as the client does: one that died in the latch may be half gone, and its token still there.
  template <class Call>
  static Status unstalled(Call call) {
    const uint64_t deadline = harness::now_ms() + harness::kPatienceMs;
    Status status = call();
    while (status == Status::kStalled && harness::now_ms() < deadline) status = call();
    return status;
  }
  // A thread that ends with these slots, in whatever state they are.
  void end_thread(const std::vector<SlotRef>& refs) {
    for (const SlotRef& ref : refs) arena->leave(ref);
    CHECK_EQ(unstalled([&] { return arena->recover_left(); }), Status::kOk);
  }
  // One that ends while it holds this lock exclusively.
  void abandon(const std::string& name, uint32_t thread = 0) {
    const SlotRef ref = open(name, thread);
    CHECK_EQ(acquire(ref, Mode::kExclusive), Try::kAcquired);
    end_thread({ref});
  }
  void steal(const SlotRef& ref) {
    CHECK_EQ(unstalled([&] { return arena->steal(ref, &token); }), Status::kOk);
  }
  void release(const SlotRef& ref) {
    Status status = arena->release(ref);
    if (status == Status::kStalled) status = unstalled([&] { return arena->release_duty(ref); });
    CHECK_EQ(status, Status::kOk);
    CHECK_EQ(ref.slot->word.load(std::memory_order_relaxed), proclock::idle_word(ref.tag));
  }
  void unbind(const SlotRef& ref) {
    CHECK_EQ(unstalled([&] { return arena->unbind(ref); }), Status::kOk);
  }
  bool was_told(const SlotRef& ref) const {
    return std::find(told.begin(), told.end(), ref.slot_index) != told.end();
  }
  // Takes the pokes off the doorbell and off what we told ourselves.
  std::vector<uint32_t> pokes() {
    std::vector<uint32_t> slots;
    CHECK_EQ(unstalled([&] { return arena->take_poked(&slots); }), Status::kOk);
    slots.insert(slots.end(), told.begin(), told.end());
    told.clear();
    std::sort(slots.begin(), slots.end());
    slots.erase(std::unique(slots.begin(), slots.end()), slots.end());
    return slots;
  }
  bool take_poke(const SlotRef& ref) {
    const std::vector<uint32_t> slots = pokes();
    return std::find(slots.begin(), slots.end(), ref.slot_index) != slots.end();
  }
  // What the detector does in a round: asks about every process.
  void look_at_all() {
    for (uint32_t process = 1; process <= arena->processes_used(); process++) {
      CHECK_EQ(unstalled([&] { return arena->recover_if_dead(process); }), Status::kOk);
    }
  }

  void poked(const std::vector<uint32_t>& slots) override {
    told.insert(told.end(), slots.begin(), slots.end());
  }

  P::Memory memory;
  std::unique_ptr<Arena> arena;
  uint64_t token = 0;          // of the last grant
  std::vector<uint32_t> told;  // slots of ours that were poked by ourselves
};

using Ref = Member::SlotRef;

// A synchronous wait: sleeps on the wake word alone, without ticks that would hide a lost wake-up. With `tick_ms`: and looks around
// now and then, as the client does. With kSlotAsync: as an event loop does, which sleeps on the doorbell of its process and tries
// only when it is told to.
inline Status acquire_waiting(Member& self, const Ref& ref, Mode mode, uint32_t flags = 0,
                              uint64_t patience_ms = harness::kPatienceMs, uint64_t tick_ms = 0) {
  const uint64_t deadline = harness::now_ms() + patience_ms;
  Status status = Member::unstalled([&] { return self.arena->enqueue(ref, mode, flags); });
  if (!ok(status) && status != Status::kAgain) return status;
  const bool async = (flags & proclock::kSlotAsync) != 0;
  auto& word = async ? *self.arena->doorbell() : ref.slot->wake;
  if (async) self.told.push_back(ref.slot_index);  // the first try needs no poke
  proclock::PokeSeen seen_pokes;
  for (;;) {
    const uint32_t seen = word.load(std::memory_order_acquire);  // W1
    status = !async || self.take_poke(ref) ? self.react(ref, mode) : Status::kAgain;
    if (status != Status::kAgain) return status;
    if (tick_ms != 0) {
      self.arena->open_barrier_if_overdue(ref.lock_index, &seen_pokes);
      self.arena->look(ref.lock_index);
    }
    const uint64_t now = harness::now_ms();
    const uint64_t until = tick_ms == 0 ? deadline : std::min(deadline, now + tick_ms);
    TestPlatform::wait(&word, seen, TestPlatform::monotonic_ns() + (until > now ? until - now : 0) * 1000000);
    // Without another try, which would find what a lost wake-up kept from us.
    if (harness::now_ms() >= deadline) {
      status = Member::unstalled([&] { return self.arena->withdraw(ref); });
      return ok(status) ? Status::kTimeout : status;
    }
  }
}

// Who holds, counted outside the lock, in memory that the processes of a test share.
struct Oracle {
  std::atomic<int32_t> readers{0};
  std::atomic<int32_t> writers{0};
  std::atomic<uint32_t> violations{0};

  void enter(Mode mode) {
    if (mode == Mode::kExclusive) {
      if (writers.fetch_add(1) != 0 || readers.load() != 0) violations.fetch_add(1);
    } else {
      readers.fetch_add(1);
      if (writers.load() != 0) violations.fetch_add(1);
    }
  }
  void leave(Mode mode) { (mode == Mode::kExclusive ? writers : readers).fetch_sub(1); }
};

using Auditor = BasicAuditor<TestPlatform>;

inline Census audit(Member& member) { return Auditor(member.memory.base()).check(); }
