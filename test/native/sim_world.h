// Simulated processes over one segment, what their threads do with the lock (as the client does it), and the truth about
// every lock, which is kept outside of it and compared with what it says.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "sim_platform.h"
// After the core.
#include "auditor.h"

namespace sim {

using Arena = proclock::Arena<Platform>;
using SlotRef = Arena::SlotRef;
using proclock::Name;

constexpr uint64_t kMs = 1000000;
constexpr uint64_t kTickNs = 50 * kMs;  // how long an unusual state may go unnoticed, as in the client

inline Name name_of(const std::string& text) {
  return {text.data(), static_cast<uint32_t>(text.size()), false};
}

// A process with the segment open.
struct Host final : Process, proclock::PokeSink {
  Host(int n) : memory(*this) {
    number = n;
    open = true;
    arena = std::make_unique<Arena>(memory, *this);
  }
  ProcessIdentity identity() const {
    ProcessIdentity self;
    self.pid = 100 + number;
    self.start_time = 1;
    self.pid_ns = 1;
    return self;
  }
  void attach() { SIM_CHECK(arena->attach(identity()) == Status::kOk); }
  // Pokes of ourselves, or taken off the doorbell by another thread: each is kept for the slot that it is for.
  void poked(const std::vector<uint32_t>& slots) override {
    told.insert(told.end(), slots.begin(), slots.end());
    if (!the_machine.running()) return;
    for (Actor& actor : the_machine.actors()) {
      if (actor.process == this && actor.state != State::kDead) the_machine.notify(actor);
    }
  }
  bool was_told(uint32_t slot) {
    const auto found = std::find(told.begin(), told.end(), slot);
    if (found == told.end()) return false;
    told.erase(found);
    return true;
  }

  Platform::Memory memory;
  std::unique_ptr<Arena> arena;
  std::vector<uint32_t> told;
};

// Says kStalled to nobody: calls again until the guard is to be had.
template <class Call>
Status patiently(Call call) {
  for (;;) {
    const Status status = call();
    if (status != Status::kStalled) return status;
    if (!the_machine.running()) the_machine.fail("stalled, and nobody else is there");
    the_machine.sleep(nullptr, the_machine.now_ns + kMs, false);
  }
}

// What is true of one name.
struct Truth {
  enum class Mark { kNo, kYes, kEither };

  uint64_t token = 0;  // the greatest of an exclusive grant
  Mark abandoned = Mark::kNo;
  int stealing = 0;  // thieves at work
  bool thieves[kActorsMax] = {};
  bool thief_died = false;  // in the middle of it
  struct Hold {
    bool in = false;
    Mode mode = Mode::kShared;
    const proclock::Slot<Platform>* slot = nullptr;
    bool robbed = false;
    bool changes = false;  // is in a downgrade: the slot's word says how far it is
    bool excludes(Mode other) const {
      if (!in || robbed) return false;
      const uint64_t word = slot->word.latest();
      if (proclock::phase_of(word) == Phase::kStolen) return false;
      return other == Mode::kExclusive || (changes ? proclock::mode_of(word) : mode) == Mode::kExclusive;
    }
  } holds[kActorsMax];
  struct Wait {
    bool in = false;
    Mode mode = Mode::kShared;
    bool fair = false;
    const proclock::Slot<Platform>* slot = nullptr;
    uint64_t since_ns = 0;  // in the queue at the latest
    bool suspect = false;   // was skipped, or is of a process that dies
  } waits[kActorsMax];
  uint64_t left_ns = 0;        // when somebody last left the queue, and others moved up
  int leaving = 0;             // are about to
  uint64_t idle_since_ns = 0;  // since when somebody waits for nobody but a stopped one; 0: nobody does
};

struct Counts {
  uint64_t grants = 0, timeouts = 0, refused = 0, deaths_holding = 0, steals = 0, robbed = 0, downgrades = 0,
           quiets = 0;
};

class World final : public Machine::Observer {
 public:
  static constexpr int kNamesMax = 3;

  void begin() {
    Segment::get().reset();
    hosts.clear();
    for (Truth& truth : truths) truth = Truth();
    Platform::initialises = &World::check_initialise;
    Platform::held = &World::check_held;
  }
  Host& add_host() {
    hosts.push_back(std::make_unique<Host>(static_cast<int>(hosts.size())));
    return *hosts.back();
  }
  static std::string name(int n) {
    return n == 0 ? "a lock with a name that needs an extent" : "lock " + std::to_string(n);
  }

  // ---- grants, as the callers see them

  void granted(int n, const SlotRef& ref, Mode mode, uint64_t token, bool abandoned, uint64_t begun_ns) {
    Truth& truth = truths[n];
    const int me = the_machine.current().id;
    counts.grants++;
    Truth::Hold& mine = truth.holds[me];
    if (proclock::phase_of(ref.slot->word.latest()) == Phase::kStolen) {
      // Robbed before it could tell anybody: as if it had held, and lost it.
      mine = {true, mode, ref.slot, true, false};
      // The thief has a greater token, whether it has told yet, is about to, or died.
      const bool thief_told = truth.stealing == 0 && !truth.thief_died;
      if (mode == Mode::kExclusive && token > truth.token) {
        if (thief_told) the_machine.fail("a robbed hold has a token above the thief's");
        truth.token = token;
      }
      return;
    }
    for (int other = 0; other < kActorsMax; other++) {
      if (other != me && truth.holds[other].excludes(mode))
        the_machine.fail("two hold that exclude each other");
    }
    if (mode == Mode::kExclusive) {
      if (token <= truth.token) the_machine.fail("a token repeats, or goes back");
      truth.token = token;
    } else if (token < truth.token && !(truth.thief_died && the_machine.plan().weak)) {
      // Whoever orders the token of a robbed writer before the next reader's load is the thief, by its own token.
      the_machine.fail("a reader is told of a token before that of the last writer");
    }
    if (truth.abandoned == Truth::Mark::kEither)
      truth.abandoned = abandoned ? Truth::Mark::kYes : Truth::Mark::kNo;
    if (abandoned && truth.abandoned == Truth::Mark::kNo)
      the_machine.fail("abandoned, and nobody died holding it");
    if (!abandoned && truth.abandoned == Truth::Mark::kYes)
      the_machine.fail("not told that the last holder died");
    check_overtaking(truth, me, mode, begun_ns);
    mine = {true, mode, ref.slot, false, false};
  }
  // Before it releases.
  void leaves(int n) { truths[n].holds[the_machine.current().id].in = false; }
  bool is_robbed(int n) {
    const Truth::Hold& mine = truths[n].holds[the_machine.current().id];
    return mine.in && proclock::phase_of(mine.slot->word.latest()) == Phase::kStolen;
  }

  void waits(int n, const SlotRef& ref, Mode mode, bool fair) {
    Truth& truth = truths[n];
    truth.left_ns = the_machine.now_ns;
    truth.waits[the_machine.current().id] = {true, mode, fair, ref.slot, the_machine.now_ns, false};
  }
  // Before it leaves the queue, and after.
  void waits_no_more(int n) {
    truths[n].waits[the_machine.current().id].in = false;
    truths[n].leaving++;
  }
  void left(int n) {
    truths[n].leaving--;
    truths[n].left_ns = the_machine.now_ns;
  }

  // ---- the machine's side

  void dying(Actor& actor) override {
    for (Truth& truth : truths) truth.waits[actor.id].suspect = true;
  }

  void gone(Process& process) override {
    for (int n = 0; n < kNamesMax; n++) {
      Truth& truth = truths[n];
      for (Actor& actor : the_machine.actors()) {
        if (actor.process != &process) continue;
        truth.holds[actor.id].in = false;
        truth.waits[actor.id].in = false;
      }
    }
    // What the slots say, since a thread dies in the middle of an operation.
    const BasicAuditor<Platform> auditor(Segment::get().base());
    const uint32_t used = Segment::get().header().slots.used.latest();
    for (uint32_t index = 1; index <= used; index++) {
      const auto& slot = auditor.slot(index);
      const uint32_t lock = slot.lock.latest();
      const uint32_t owner = slot.process.latest();
      if (lock == 0 || owner == 0 || owner >= Segment::kOwnersMax || Segment::get().owners[owner] != &process)
        continue;
      const uint64_t word = slot.word.latest();
      if (!proclock::holds(word, Mode::kExclusive)) continue;
      const uint64_t gate = auditor.lock(lock).gate.latest();
      if (proclock::storage_of(word) != proclock::storage_of(gate)) continue;
      const int n = number_of(lock);
      if (n < 0) continue;
      counts.deaths_holding++;
      truths[n].abandoned = truths[n].stealing != 0 ? Truth::Mark::kEither : Truth::Mark::kYes;
    }
    for (Truth& truth : truths) {
      for (Actor& actor : the_machine.actors()) {
        if (actor.process != &process || !truth.thieves[actor.id]) continue;
        truth.thieves[actor.id] = false;
        truth.stealing--;
        truth.thief_died = true;
      }
    }
  }

  // Nobody does anything: whoever is first in a queue must be kept out by somebody who holds. If somebody is stopped, it may
  // be the one to do something about it, but not for ever.
  void quiet(bool somebody_stopped) override {
    counts.quiets++;
    if (somebody_stopped && Segment::get().header().guard_owner.latest() != proclock::kNobody) return;
    for (int n = 0; n < kNamesMax; n++) {
      Truth& truth = truths[n];
      if (!sleeps_for_nothing(n, somebody_stopped)) {
        truth.idle_since_ns = 0;
        continue;
      }
      if (!somebody_stopped) the_machine.fail("a waiter sleeps, and nobody keeps it out");
      if (truth.idle_since_ns == 0) truth.idle_since_ns = the_machine.now_ns;
      if (the_machine.now_ns - truth.idle_since_ns > 5 * kTickNs)
        the_machine.fail("a stopped waiter holds up the others");
    }
  }

  // The number of a name from its lock entry.
  int number_of(uint32_t lock) const {
    for (int n = 0; n < kNamesMax; n++) {
      if (index_of(n) == lock) return n;
    }
    return -1;
  }
  uint32_t index_of(int n) const {
    const std::string text = name(n);
    const uint32_t hash = proclock::hash_name(name_of(text));
    const BasicAuditor<Platform> auditor(Segment::get().base());
    const uint32_t used = Segment::get().header().locks.used.latest();
    for (uint32_t index = 1; index <= used; index++) {
      const auto& lock = auditor.lock(index);
      if ((lock.name_bytes.latest() & proclock::kNameUsed) != 0 && lock.hash.latest() == hash) return index;
    }
    return 0;
  }

  // After everybody has ended: one more comes, and finds everything in order.
  void inspect() {
    {
      Segment::get().full = false;
      Host& inspector = add_host();
      inspector.attach();
      for (uint32_t index = 1; index <= inspector.arena->processes_used(); index++) {
        SIM_CHECK(inspector.arena->recover_if_dead(index) == Status::kOk);
      }
      for (int n = 0; n < kNamesMax; n++) inspect_lock(inspector, n);
      const Census census = BasicAuditor<Platform>(Segment::get().base()).check();
      SIM_CHECK(census.slots == 0);
      SIM_CHECK(census.queued == 0);
      SIM_CHECK(census.retired == 0);
      SIM_CHECK(census.storages == census.locks);
      SIM_CHECK(census.processes == 1);
      SIM_CHECK(inspector.arena->detach() == Status::kOk);
    }
  }

  std::vector<std::unique_ptr<Host>> hosts;
  Truth truths[kNamesMax];
  Counts counts;

 private:
  void inspect_lock(Host& inspector, int n) {
    Arena& arena = *inspector.arena;
    const std::string text = name(n);
    SlotRef ref, other;
    SIM_CHECK(arena.open_lock(name_of(text), 7, &ref) == Status::kOk);
    SIM_CHECK(arena.bind(ref.lock_index, 8, &other) == Status::kOk);
    uint64_t token = 0, last = 0;
    SIM_CHECK(arena.try_acquire(ref, Mode::kExclusive, Turn::kInOrder, &token) == Try::kAcquired);
    SIM_CHECK(token > truths[n].token);
    const bool abandoned = ref.lock->abandoned.latest() != 0;
    if (truths[n].abandoned != Truth::Mark::kEither)
      SIM_CHECK(abandoned == (truths[n].abandoned == Truth::Mark::kYes));
    SIM_CHECK(arena.try_acquire(other, Mode::kShared, Turn::kMayOvertake, &last) == Try::kBusy);
    SIM_CHECK(arena.set_abandoned(ref, false) == Status::kOk);
    SIM_CHECK(arena.release(ref) == Status::kOk);
    SIM_CHECK(arena.try_acquire(ref, Mode::kShared, Turn::kInOrder, &last) == Try::kAcquired);
    SIM_CHECK(last == token);
    SIM_CHECK(arena.try_acquire(other, Mode::kShared, Turn::kInOrder, &last) == Try::kAcquired);
    SIM_CHECK(arena.release(ref) == Status::kOk);
    SIM_CHECK(arena.release(other) == Status::kOk);
    SIM_CHECK(arena.unbind(other) == Status::kOk);
    SIM_CHECK(arena.unbind(ref) == Status::kOk);
  }

  // Strict FIFO for who asked for it, and for everybody else one barge interval after the front changed. Only where reads are
  // not old: a newcomer that has not seen the queue yet may pass it.
  void check_overtaking(const Truth& truth, int me, Mode mode, uint64_t begun_ns) {
    if (the_machine.plan().weak || the_machine.stops != 0 || the_machine.deaths != 0) return;
    for (int other = 0; other < kActorsMax; other++) {
      const Truth::Wait& wait = truth.waits[other];
      if (other == me || !wait.in || wait.suspect) continue;
      if (mode == Mode::kShared && wait.mode == Mode::kShared) continue;
      if (wait.fair && begun_ns > wait.since_ns)
        the_machine.fail("a fair waiter was overtaken by a later one");
      if (truth.leaving != 0 || begun_ns <= std::max(wait.since_ns, truth.left_ns) + Arena::kBargeNs)
        continue;
      the_machine.fail("a waiter was overtaken for too long");
    }
  }

  // Is there a waiter that is awake, so to say, and whom nobody keeps out?
  bool sleeps_for_nothing(int n, bool somebody_stopped) const {
    const BasicAuditor<Platform> auditor(Segment::get().base());
    const uint32_t lock = index_of(n);
    if (lock == 0) return false;
    uint32_t first = auditor.lock(lock).queue_head.latest();
    while (first != 0 && !is_awake(first)) first = auditor.slot(first).queue_next.latest();
    if (first == 0) return false;
    const Mode mode = (auditor.slot(first).flags.latest() & proclock::kSlotExclusive) != 0 ? Mode::kExclusive
                                                                                           : Mode::kShared;
    for (const Truth::Hold& hold : truths[n].holds) {
      if (hold.excludes(mode)) return false;
    }
    if (!somebody_stopped) return true;
    // Stopped in the middle of an acquire or a release.
    for (uint32_t index = 1; index <= Segment::get().header().slots.used.latest(); index++) {
      if (auditor.slot(index).lock.latest() == lock && proclock::refers(auditor.slot(index).word.latest()))
        return false;
    }
    return true;
  }
  // Neither dead, which nobody has to know yet, nor stopped.
  static bool is_awake(uint32_t slot) {
    const BasicAuditor<Platform> auditor(Segment::get().base());
    const auto& entry = auditor.slot(slot);
    if (!Segment::get().owners[entry.process.latest()]->open) return false;
    for (const Actor& actor : the_machine.actors()) {
      if (actor.state == State::kStopped && static_cast<uint32_t>(actor.id) == entry.thread.latest())
        return false;
    }
    return true;
  }

  // A slot holds exactly when its word says HELD: so no two words of those who live may say it that exclude each other, at
  // any moment.
  static void check_held(const void* word, uint64_t value) {
    const BasicAuditor<Platform> auditor(Segment::get().base());
    const uint32_t used = Segment::get().header().slots.used.latest();
    if (word < &auditor.slot(1) || word > &auditor.slot(used) || reinterpret_cast<uintptr_t>(word) % 64 != 0)
      return;
    const uint32_t lock = reinterpret_cast<const proclock::Slot<Platform>*>(word)->lock.latest();
    for (uint32_t index = 1; index <= used; index++) {
      const auto& slot = auditor.slot(index);
      if (&slot.word == word || slot.lock.latest() != lock || !proclock::is_held(slot.word.latest()))
        continue;
      const Process* process = Segment::get().owners[slot.process.latest()];
      if (process == nullptr || !process->open) continue;
      if (proclock::holds(value, Mode::kExclusive) || proclock::holds(slot.word.latest(), Mode::kExclusive)) {
        the_machine.fail("two slots say HELD that exclude each other");
      }
    }
  }

  // INV-3: nobody alive refers to a storage that is made new; but for a TRYING that was stored late, by somebody who was
  // stopped after A1, and whose A3 fails. Whoever got past A3 was made STALE by V2.
  static void check_initialise(const Platform::RwLock* rwlock) {
    const BasicAuditor<Platform> auditor(Segment::get().base());
    const size_t offset =
        reinterpret_cast<const char*>(rwlock) - Segment::get().base() - Segment::Layout::kStorages;
    const uint32_t storage = static_cast<uint32_t>(offset / sizeof(proclock::Storage<Platform>)) + 1;
    const uint32_t used = Segment::get().header().slots.used.latest();
    for (uint32_t index = 1; index <= used; index++) {
      const auto& slot = auditor.slot(index);
      const uint32_t owner = slot.process.latest();
      if (slot.lock.latest() == 0 || owner == 0 || owner >= Segment::kOwnersMax) continue;
      const uint64_t word = slot.word.latest();
      if (!proclock::refers(word) || proclock::storage_of(word) != storage) continue;
      if (proclock::phase_of(word) == Phase::kTrying) continue;
      const Process* process = Segment::get().owners[owner];
      if (process != nullptr && process->open)
        the_machine.fail("a storage is initialised though a slot refers to it (INV-3)");
    }
  }
};

inline World the_world;

// ---- a thread, as the client drives the core

struct Request {
  Mode mode = Mode::kShared;
  bool fair = false;
  bool async = false;
  uint64_t patience_ns = kForever;  // 0: tries once
};

// A mutant of the thread, not of the core: W1 after W3.
inline bool reads_wake_word_late = false;

class Thread {
 public:
  Thread(Host& host, Actor& actor) : host_(&host), actor_(&actor) {}

  Arena& arena() { return *host_->arena; }
  SlotRef& ref(int n) { return refs_[n]; }

  // False: there is no room for one more name.
  bool open(int n) {
    actor_->doing = "open";
    const std::string text = World::name(n);
    const Status status = patiently(
        [&] { return arena().open_lock(name_of(text), static_cast<uint32_t>(actor_->id), &refs_[n]); });
    SIM_CHECK(ok(status) || (status == Status::kNoSpace && Segment::get().full));
    return ok(status);
  }
  void close(int n) {
    if (refs_[n].slot == nullptr) return;
    actor_->doing = "close";
    SIM_CHECK(patiently([&] { return arena().unbind(refs_[n]); }) == Status::kOk);
    refs_[n] = SlotRef();
  }

  // True: holds.
  bool acquire(int n, const Request& request) {
    actor_->doing = request.mode == Mode::kExclusive ? "acquire exclusive" : "acquire shared";
    the_machine.begins();
    const uint64_t begun = the_machine.now_ns;
    const SlotRef& ref = refs_[n];
    uint64_t token = 0;
    Try tried = try_once(ref, request, &token);
    if (tried == Try::kAcquired) {
      enter(n, request.mode, token, begun);
      return true;
    }
    if (request.patience_ns == 0) {
      the_world.counts.refused++;
      return false;
    }
    return wait(n, request, begun);
  }

  // False: it had been stolen.
  bool release(int n, bool ends = false) {
    actor_->doing = "release";
    the_machine.begins();
    const SlotRef& ref = refs_[n];
    if (ends && mode_ == Mode::kExclusive) {
      const Status status =
          change_mark(n, Truth::Mark::kYes, [&] { return arena().set_abandoned(ref, true); });
      SIM_CHECK(status == Status::kOk || status == Status::kNotHeld);
    }
    the_world.leaves(n);
    Status status = arena().release(ref);
    if (owes_settle_) {
      settle(n);
      the_world.left(n);
    }
    if (status == Status::kStalled) status = patiently([&] { return arena().release_duty(ref); });
    SIM_CHECK(status == Status::kOk || (status == Status::kStolen && the_world.counts.steals != 0));
    the_world.counts.robbed += status == Status::kStolen;
    return status == Status::kOk;
  }

  bool downgrade(int n) {
    actor_->doing = "downgrade";
    const SlotRef& ref = refs_[n];
    Truth::Hold& hold = the_world.truths[n].holds[actor_->id];
    hold.changes = true;
    const Status status = change_mark(n, Truth::Mark::kNo, [&] { return arena().downgrade(ref); });
    hold.changes = false;
    SIM_CHECK(status == Status::kOk || status == Status::kNotHeld);
    if (!ok(status)) return false;
    mode_ = Mode::kShared;
    hold.mode = Mode::kShared;
    the_world.counts.downgrades++;
    return true;
  }

  void steal(int n) {
    actor_->doing = "steal";
    Truth& truth = the_world.truths[n];
    const SlotRef& ref = refs_[n];
    uint64_t token = 0;
    truth.stealing++;
    truth.thieves[actor_->id] = true;
    the_world.counts.steals++;
    SIM_CHECK(patiently([&] { return arena().steal(ref, &token); }) == Status::kOk);
    mode_ = Mode::kExclusive;
    enter(n, mode_, token, 0);  // whoever waits goes on waiting
    truth.stealing--;
    truth.thieves[actor_->id] = false;
  }

  void clear_abandoned(int n) {
    actor_->doing = "clear the mark";
    const SlotRef& ref = refs_[n];
    change_mark(n, Truth::Mark::kNo, [&] { return arena().set_abandoned(ref, false); });
  }

  // Sleeps outside of any operation.
  void rest(uint64_t ns) { the_machine.sleep(nullptr, the_machine.now_ns + ns, true); }

  void look_for_dead() {
    actor_->doing = "recover";
    for (uint32_t index = 1; index <= arena().processes_used(); index++) {
      SIM_CHECK(patiently([&] { return arena().recover_if_dead(index); }) == Status::kOk);
    }
  }

  // Everything back, and if nobody else is there, the process as well.
  void finish() {
    for (int n = 0; n < World::kNamesMax; n++) close(n);
    if (host_->threads > 1 || host_->dying) return;
    actor_->doing = "detach";
    SIM_CHECK(patiently([&] { return arena().detach(); }) == Status::kOk);
    the_machine.yield();
    the_machine.close(*host_);
  }

  Host& host() { return *host_; }
  Mode mode() const { return mode_; }
  Random random;

 private:
  Try try_once(const SlotRef& ref, const Request& request, uint64_t* token) {
    const Turn turn = request.fair ? Turn::kInOrder : Turn::kMayOvertake;
    Try tried = arena().try_acquire(ref, request.mode, turn, token);
    while (tried == Try::kRecovering) {
      SIM_CHECK(patiently([&] { return arena().finish_recovery(ref.lock_index); }) == Status::kOk);
      tried = arena().try_acquire(ref, request.mode, turn, token);
    }
    SIM_CHECK(tried != Try::kCorrupt);
    if (tried == Try::kOwing) SIM_CHECK(patiently([&] { return arena().release_duty(ref); }) == Status::kOk);
    return tried;
  }

  // While it is under way, a death or a thief may come before or after it.
  template <class Call>
  Status change_mark(int n, Truth::Mark to, Call call) {
    Truth& truth = the_world.truths[n];
    const Truth::Mark before = truth.abandoned;
    if (before != to) truth.abandoned = Truth::Mark::kEither;
    const Status status = patiently(call);
    // A reader may have come in beside a downgraded hold already, and have looked.
    if (truth.abandoned == Truth::Mark::kEither && !the_world.is_robbed(n))
      truth.abandoned = ok(status) ? to : before;
    return status;
  }

  void enter(int n, Mode mode, uint64_t token, uint64_t begun_ns) {
    mode_ = mode;
    const bool abandoned = refs_[n].lock->abandoned.load(std::memory_order_relaxed) != 0;
    the_world.granted(n, refs_[n], mode, token, abandoned, begun_ns);
  }

  bool wait(int n, const Request& request, uint64_t begun) {
    const SlotRef& ref = refs_[n];
    const uint64_t deadline =
        request.patience_ns == kForever ? kForever : the_machine.now_ns + request.patience_ns;
    const uint16_t flags = static_cast<uint16_t>((request.fair ? proclock::kSlotFair : 0) |
                                                 (request.async ? proclock::kSlotAsync : 0));
    actor_->doing = request.mode == Mode::kExclusive ? "wait exclusive" : "wait shared";
    Status status = patiently([&] { return arena().enqueue(ref, request.mode, flags); });
    SIM_CHECK(ok(status) || status == Status::kAgain);
    the_world.waits(n, ref, request.mode, request.fair);
    uint64_t token = 0;
    bool told = ok(status);  // an asynchronous waiter reacts when it is told to
    for (;;) {
      auto& bell = request.async ? *arena().doorbell() : ref.slot->wake;
      uint32_t seen = bell.load(std::memory_order_acquire);  // W1
      actor_->notified = false;
      if (request.async) told = take_pokes(ref) || told;
      status = Status::kAgain;
      if (!request.async || told) {
        // As a synchronous waiter spins, if it belongs to the front.
        Try tried = Try::kBusy;
        for (uint32_t rounds = random.below(3); tried == Try::kBusy && rounds > 0; rounds--) {
          tried = arena().try_front(ref, request.mode, &token);
        }
        status = tried == Try::kAcquired ? Status::kOk : react(ref, request.mode, &token);
      }
      told = false;
      if (reads_wake_word_late) seen = bell.load(std::memory_order_acquire);
      if (ok(status)) break;
      SIM_CHECK(status == Status::kAgain);
      if (the_machine.now_ns >= deadline) {
        the_world.waits_no_more(n);
        actor_->doing = "withdraw";
        SIM_CHECK(patiently([&] { return arena().withdraw(ref); }) == Status::kOk);
        the_world.left(n);
        host_->was_told(ref.slot_index);
        the_world.counts.timeouts++;
        return false;
      }
      sleep_on(bell, seen, std::min(deadline, the_machine.now_ns + kTickNs));
      actor_->doing = request.mode == Mode::kExclusive ? "wait exclusive" : "wait shared";
      const Status opened = arena().open_barrier_if_overdue(ref.lock_index);
      SIM_CHECK(ok(opened) || opened == Status::kStalled);
    }
    // Before it settles: that another one reacts, and is in as well, needs nothing of us.
    the_world.waits_no_more(n);
    enter(n, request.mode, token, begun);
    owes_settle_ = arena().settle_grant(ref) == Status::kStalled;
    if (owes_settle_ && random.one_in(2)) {
      settle(n);
    }
    if (!owes_settle_) the_world.left(n);
    return true;
  }

  Status react(const SlotRef& ref, Mode mode, uint64_t* token) {
    return patiently([&] { return arena().react(ref, mode, token); });
  }

  void settle(int n) {
    SIM_CHECK(patiently([&] { return arena().settle_grant(refs_[n]); }) == Status::kOk);
    owes_settle_ = false;
  }

  // As the doorbell's thread does it.
  bool take_pokes(const SlotRef& ref) {
    std::vector<uint32_t> slots;
    SIM_CHECK(patiently([&] { return arena().take_poked(&slots); }) == Status::kOk);
    if (!slots.empty()) host_->poked(slots);
    actor_->notified = false;
    return host_->was_told(ref.slot_index);
  }

  // As the client's threads together: one sleeps on a word; a death is looked into by another, which does not wake it.
  void sleep_on(Platform::Atomic<uint32_t>& word, uint32_t seen, uint64_t until_ns) {
    Actor& self = *actor_;
    self.outside = true;
    the_machine.about_to_sleep();
    self.outside = false;
    the_machine.full_fence();
    the_machine.compared(&word, word.latest());
    self.listens_to = &word;
    self.woken = word.latest() != seen;
    while (!self.woken && !self.notified && the_machine.now_ns < until_ns) {
      if (gone_seen_ == the_machine.gone) {
        the_machine.sleep(&word, until_ns, true);
      } else {
        gone_seen_ = the_machine.gone;
        look_for_dead();
      }
    }
    self.listens_to = nullptr;
    the_machine.full_fence();
  }

  Host* host_;
  Actor* actor_;
  SlotRef refs_[World::kNamesMax];
  Mode mode_ = Mode::kShared;
  bool owes_settle_ = false;
  uint32_t gone_seen_ = 0;
};

}  // namespace sim
