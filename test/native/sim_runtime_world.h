// What has to be true of processes that share locks through their runtimes, and is looked at from outside of them:
//
//   exclusion   no two slots say HELD that exclude each other, and no two JavaScript threads were told that they hold
//   marks       who gets a lock is told that its last holder died, exactly if it did
//   progress    whom nobody keeps out does not sleep: see sim_runtime_progress.h
//   no spinning so many steps of a thread in 50 ms, and no more (Plan::steps_per_period)
//   nothing left when all have ended: no slot, no place in a queue, no storage
#pragma once

#include <memory>
#include <string>

#include "sim_runtime_platform.h"
// After the core.
#include "auditor.h"

namespace sim {

constexpr uint64_t kMs = 1000000;
constexpr int kNamesEach = 2;
constexpr int kLocksMax = kNamespacesMax * kNamesEach;
constexpr uint64_t kServeNs =
    10 * kMs;  // how often an event loop serves where no thread can, and pays what it owes

inline proclock::Name name_of(const std::string& text) {
  return {text.data(), static_cast<uint32_t>(text.size()), false};
}

// A JavaScript thread, as the world sees it.
class Thread {
 public:
  virtual ~Thread() = default;
  Host& host() const { return host_; }
  uint32_t number() const { return number_; }  // among all of them
  virtual bool is_robbed(uint32_t hold) = 0;   // looked at from outside
  // It is in JavaScript that takes long, or blocked in an acquire: nobody looks at its asynchronous waits.
  bool is_busy() const { return busy_ || (actor_->state == State::kAsleep && !actor_->idle); }
  virtual bool misses_theft() = 0;  // it wanted to be told of one
  uint64_t misses_since_ns = 0;
  virtual bool retries() const = 0;  // what a stall has kept it from, when its timer is due
  bool lives() const {
    return actor_ != nullptr && actor_->state != State::kDead && actor_->state != State::kDone;
  }

 protected:
  Thread(Host& host, uint32_t number) : host_(host), number_(number) {}
  Host& host_;
  const uint32_t number_;
  Actor* actor_ = nullptr;
  bool busy_ = false;
};

struct Truth {
  enum class Mark { kNo, kYes, kEither };
  struct Hold {
    Thread* thread;
    uint32_t index;
    Mode mode;
    bool changes;  // is in a downgrade
  };
  uint64_t token = 0;  // the greatest of an exclusive grant
  Mark abandoned = Mark::kNo;
  std::vector<Hold> holds;
  std::vector<Thread*> thieves;  // at work
  bool thief_died = false;
  uint64_t looks = 0;  // how often the mark was looked at
  uint64_t idle_since_ns = 0;
  bool was_faulty = false;  // somebody in it, when it was last looked at
};

struct Counts {
  uint64_t grants = 0, refused = 0, timeouts = 0, steals = 0, robbed = 0, downgrades = 0, upgrades = 0,
           ends = 0, served = 0, deaths_holding = 0, told_stolen = 0, longest_ns = 0;
};

class World final : public Machine::Observer {
 public:
  using Segment = RuntimePlatform::Segment;
  using Auditor = BasicAuditor<RuntimePlatform>;

  void begin() {
    for (int n = 0; n < kNamespacesMax; n++) RuntimePlatform::segment(n).reset();
    for (Truth& truth : truths) truth = Truth();
    threads.clear();
    the_hosts.clear();
    Platform::initialises = &World::check_initialise;
    Platform::held = &World::check_held;
    Platform::unnamed = nullptr;
  }
  static std::string name(int lock) {
    return lock % kNamesEach == 0 ? "a lock with a name that needs an extent" : "lock";
  }
  static std::string space_of(int lock) { return std::string(1, static_cast<char>('a' + lock / kNamesEach)); }

  // ---- as the threads see it

  void granted(int lock, Thread& thread, uint32_t index, Mode mode, uint64_t token, bool abandoned) {
    Truth& truth = truths[lock];
    counts.grants++;
    truth.looks++;
    truth.idle_since_ns = 0;
    const bool robbed = thread.is_robbed(index);
    if (!robbed) {
      for (const Truth::Hold& other : truth.holds) {
        if ((other.mode == Mode::kShared && mode == Mode::kShared) || other.changes) continue;
        if (!other.thread->is_robbed(other.index)) the_machine.fail("two hold that exclude each other");
      }
      if (mode == Mode::kExclusive && token <= truth.token) the_machine.fail("a token repeats, or goes back");
      if (truth.abandoned == Truth::Mark::kEither)
        truth.abandoned = abandoned ? Truth::Mark::kYes : Truth::Mark::kNo;
      if (abandoned && truth.abandoned == Truth::Mark::kNo)
        the_machine.fail("abandoned, and nobody died holding it");
      if (!abandoned && truth.abandoned == Truth::Mark::kYes)
        the_machine.fail("not told that the last holder died");
    }
    if (mode == Mode::kExclusive) truth.token = std::max(truth.token, token);
    truth.holds.push_back({&thread, index, mode, false});
  }
  Truth::Hold* hold_of(int lock, const Thread& thread, uint32_t index) {
    for (Truth::Hold& hold : truths[lock].holds) {
      if (hold.thread == &thread && hold.index == index) return &hold;
    }
    return nullptr;
  }
  // Before it releases.
  void leaves(int lock, const Thread& thread, uint32_t index) {
    auto& holds = truths[lock].holds;
    holds.erase(
        std::remove_if(holds.begin(), holds.end(),
                       [&](const Truth::Hold& one) { return one.thread == &thread && one.index == index; }),
        holds.end());
  }

  // ---- the machine's side

  void dying(Actor&) override {}
  void gone(Process& process) override;
  bool is_entered(const Process& process) override {
    for (int n = 0; n < kNamespacesMax; n++) {
      const Segment& segment = RuntimePlatform::segment(n);
      for (uint64_t number = 1; number < segment.owners().size(); number++) {
        if (segment.owner(number) == &process && !has_entry(segment, number)) return false;
      }
    }
    return true;
  }
  bool is_inside(const Actor& actor) override {
    for (int n = 0; n < kNamespacesMax; n++) {
      if (latch_owner(n) == actor.process) return true;
    }
    return false;
  }
  void busy() override { check(); }
  void quiet() override { check(); }

  void inspect();

  std::vector<Thread*> threads;
  Truth truths[kLocksMax];
  Counts counts;

 private:
  static constexpr uint64_t kLongestNs = 600 * 1000 * kMs;  // no schedule takes as long as this

  static const Process* latch_owner(int n) {
    const Segment& segment = RuntimePlatform::segment(n);
    return segment.owner(proclock::latch_owner(segment.header().latch.latest()));
  }
  static bool has_entry(const Segment& segment, uint64_t number) {
    for (uint32_t index = 1; index <= segment.header().processes.used.latest(); index++) {
      const auto& entry = segment.process(index);
      if (entry.state.latest() == static_cast<uint32_t>(proclock::ProcessState::kLive) &&
          entry.number.latest() == number)
        return true;
    }
    return false;
  }
  static uint32_t index_of(int lock) {
    const std::string text = name(lock);
    const uint32_t hash = proclock::hash_name(name_of(text));
    const Segment& segment = RuntimePlatform::segment(lock / kNamesEach);
    const Auditor auditor(segment.base());
    for (uint32_t index = 1; index <= segment.header().locks.used.latest(); index++) {
      const auto& entry = auditor.lock(index);
      if ((entry.name_bytes.latest() & proclock::kNameUsed) != 0 && entry.hash.latest() == hash) return index;
    }
    return 0;
  }

  void check();
  void check_thefts();
  uint64_t bound_ns(int lock) const;
  bool is_anybody_faulty(int lock) const;
  bool is_queued(int lock, const Thread& thread) const;
  // Whoever could not poke the next one when it released, since the latch was stalled, and is busy by now.
  bool is_owed_by_busy(int lock) const;
  void print(int lock) const;
  // A process that exits takes its threads with it, and one of them may have been inside the latch.
  static bool is_absent(const Process* inside) {
    return inside != nullptr && (inside->dying || !inside->open || inside->stopped_until_ns != 0);
  }
  static bool sleeps_for_latch(int n) {
    for (const Actor& actor : the_machine.actors()) {
      if (actor.state == State::kAsleep && actor.sleeps_on_word(&RuntimePlatform::segment(n).header().latch))
        return true;
    }
    return false;
  }
  bool sleeps_for_nothing(int lock) const;
  bool is_awake(const Segment& segment, uint32_t slot) const;
  void inspect_lock(proclock::Arena<RuntimePlatform>& arena, int lock);
  static void check_held(const void* word, uint64_t value);
  static void check_initialise(const Platform::RwLock* rwlock);
};

inline World the_world;

inline void World::gone(Process& process) {
  for (Truth& truth : truths) {
    truth.holds.erase(std::remove_if(truth.holds.begin(), truth.holds.end(),
                                     [&](const Truth::Hold& one) { return &one.thread->host() == &process; }),
                      truth.holds.end());
  }
  // What the slots say, since a thread dies in the middle of an operation.
  for (int lock = 0; lock < kLocksMax; lock++) {
    const Segment& segment = RuntimePlatform::segment(lock / kNamesEach);
    const Auditor auditor(segment.base());
    const uint32_t lock_index = index_of(lock);
    for (uint32_t index = 1; lock_index != 0 && index <= segment.header().slots.used.latest(); index++) {
      const auto& slot = auditor.slot(index);
      const uint64_t word = slot.word.latest();
      if (slot.lock.latest() != lock_index || segment.owner_of(word) != &process) continue;
      if ((!proclock::is_held(word) && !proclock::is_left(word)) ||
          proclock::mode_of(word) != Mode::kExclusive)
        continue;
      if (proclock::storage_of(word) != proclock::storage_of(auditor.lock(lock_index).gate.latest()))
        continue;
      counts.deaths_holding++;
      truths[lock].abandoned = truths[lock].thieves.empty() ? Truth::Mark::kYes : Truth::Mark::kEither;
    }
    auto& thieves = truths[lock].thieves;
    const size_t before = thieves.size();
    thieves.erase(std::remove_if(thieves.begin(), thieves.end(),
                                 [&](const Thread* thief) { return &thief->host() == &process; }),
                  thieves.end());
    truths[lock].thief_died = truths[lock].thief_died || thieves.size() != before;
  }
  the_machine.last_fault_ns = the_machine.now_ns;
  if (process.execs) return;  // its pid lives on
  for (Host* host : the_hosts) {
    if (host->open && host->watcher != nullptr) host->watcher->process_ended(static_cast<Host&>(process));
  }
}

// ---- the slots

// A slot holds exactly when its word says HELD: so no two words of those who live may say it that exclude each other, at
// any moment.
inline void World::check_held(const void* word, uint64_t value) {
  for (int n = 0; n < kNamespacesMax; n++) {
    const Segment& segment = RuntimePlatform::segment(n);
    const Auditor auditor(segment.base());
    const uint32_t used = segment.header().slots.used.latest();
    if (word < &auditor.slot(1) || word > &auditor.slot(used) || reinterpret_cast<uintptr_t>(word) % 64 != 0)
      continue;
    const uint32_t lock = reinterpret_cast<const proclock::Slot<RuntimePlatform>*>(word)->lock.latest();
    for (uint32_t index = 1; index <= used; index++) {
      const auto& slot = auditor.slot(index);
      const uint64_t other = slot.word.latest();
      if (&slot.word == word || slot.lock.latest() != lock || !proclock::is_held(other)) continue;
      const Process* process = segment.owner_of(other);
      if (process == nullptr || !process->open) continue;
      if (proclock::holds(value, Mode::kExclusive) || proclock::holds(other, Mode::kExclusive))
        the_machine.fail("two slots say HELD that exclude each other");
    }
  }
}

// INV-3, as in sim_world.h.
inline void World::check_initialise(const Platform::RwLock* rwlock) {
  for (int n = 0; n < kNamespacesMax; n++) {
    const Segment& segment = RuntimePlatform::segment(n);
    const Auditor auditor(segment.base());
    const char* address = reinterpret_cast<const char*>(rwlock);
    const char* table = segment.base() + Segment::Layout::kStorages;
    if (address < table || address >= segment.base() + Segment::Layout::kSlots) continue;
    const uint32_t storage = static_cast<uint32_t>(static_cast<size_t>(address - table) /
                                                   sizeof(proclock::Storage<RuntimePlatform>)) +
                             1;
    for (uint32_t index = 1; index <= segment.header().slots.used.latest(); index++) {
      const auto& slot = auditor.slot(index);
      const uint64_t word = slot.word.latest();
      if (slot.lock.latest() == 0 || !proclock::refers(word) || proclock::storage_of(word) != storage)
        continue;
      if (proclock::phase_of(word) == Phase::kTrying || proclock::is_left(word)) continue;
      const Process* process = segment.owner_of(word);
      if (process != nullptr && process->open)
        the_machine.fail("a storage is initialised though a slot refers to it (INV-3)");
    }
  }
}

// ---- after everybody has ended: one more comes, and finds everything in order

inline void World::inspect() {
  struct Nobody final : proclock::PokeSink {
    void poked(const std::vector<uint32_t>&) override {}
  } nobody;
  Host inspector(static_cast<int>(the_hosts.size()), {});
  the_hosts.push_back(&inspector);
  for (int n = 0; n < kNamespacesMax; n++) {
    RuntimePlatform::Memory memory(inspector, n);
    proclock::Arena<RuntimePlatform> arena(memory, nobody);
    SIM_CHECK(arena.attach(inspector.identity()) == Status::kOk);
    for (uint32_t index = 1; index <= arena.processes_used(); index++) {
      SIM_CHECK(arena.recover_if_dead(index) == Status::kOk);
    }
    for (int name = 0; name < kNamesEach; name++) inspect_lock(arena, n * kNamesEach + name);
    const Census census = Auditor(memory.base()).check();
    SIM_CHECK(census.slots == 0);
    SIM_CHECK(census.queued == 0);
    SIM_CHECK(census.retired == 0);
    SIM_CHECK(census.storages == census.locks);
    SIM_CHECK(census.processes == 1);
    SIM_CHECK(arena.detach() == Status::kOk);
  }
}

inline void World::inspect_lock(proclock::Arena<RuntimePlatform>& arena, int lock) {
  const std::string text = name(lock);
  proclock::Arena<RuntimePlatform>::SlotRef ref;
  SIM_CHECK(arena.open_lock(name_of(text), 7, &ref) == Status::kOk);
  uint64_t token = 0;
  SIM_CHECK(arena.try_acquire(ref, Mode::kExclusive, Turn::kInOrder, &token) == Try::kAcquired);
  SIM_CHECK(token > truths[lock].token);
  const bool abandoned = ref.lock->abandoned.latest() != 0;
  if (truths[lock].abandoned != Truth::Mark::kEither)
    SIM_CHECK(abandoned == (truths[lock].abandoned == Truth::Mark::kYes));
  SIM_CHECK(arena.finish(ref, proclock::Finished::kRepair) == Status::kOk);
  SIM_CHECK(arena.release(ref) == Status::kOk);
  SIM_CHECK(arena.unbind(ref) == Status::kOk);
}

}  // namespace sim

#include "sim_runtime_progress.h"
