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
constexpr uint64_t kTickNs = 50 * kMs;      // how long an unusual state may go unnoticed, as in the runtime
constexpr uint64_t kQuietNs = 3 * kTickNs;  // who waits for a lock to which nothing happened for so long ..
constexpr uint64_t kSeldomTickNs = 20 * kTickNs;  // .. looks so seldom
constexpr uint64_t kNoticedNs = 8 * kTickNs;  // what nobody is told of is noticed by then, by those that wait
constexpr uint64_t kPassedOverNs =
    2 * kTickNs;  // what each waiter that does not react costs: seen at one tick, over at the next

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
    self.pid = Platform::Memory::kFirstPid + number;
    self.start_time = 1;
    self.pid_ns = 1;
    return self;
  }
  // With the latch stalled: again, as another number.
  void attach();
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

// Says kStalled to nobody: calls again until the latch is to be had.
template <class Call>
Status patiently(Call call) {
  for (;;) {
    const Status status = call();
    if (status != Status::kStalled) return status;
    if (!the_machine.running()) the_machine.fail("stalled, and nobody else is there");
    the_machine.sleep(nullptr, the_machine.now_ns + kMs, false);
  }
}

inline void Host::attach() {
  SIM_CHECK(patiently([&] { return arena->attach(identity()); }) == Status::kOk);
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
  uint64_t looks = 0;          // how often the mark was looked at, or dropped
  uint64_t idle_since_ns = 0;  // since when somebody waits for nobody but a stopped one; 0: nobody does
};

struct Counts {
  uint64_t grants = 0, timeouts = 0, refused = 0, deaths_holding = 0, steals = 0, robbed = 0, downgrades = 0,
           quiets = 0, left = 0, marks_dropped = 0;
};

class World final : public Machine::Observer {
 public:
  static constexpr int kNamesMax = 3;

  void begin() {
    Segment::get().reset();
    hosts.clear();
    for (Truth& truth : truths) truth = Truth();
    slow_detection = anybody_left = anybody_looks_seldom = false;
    for (uint32_t& second : seconds) second = 0;
    Platform::initialises = &World::check_initialise;
    Platform::held = &World::check_held;
    Platform::unnamed = &World::unnamed;
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
    truth.looks++;
    truth.idle_since_ns = 0;
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
      const uint64_t word = slot.word.latest();
      if (lock == 0 || Segment::get().owner_of(word) != &process) continue;
      if ((!proclock::is_held(word) && !proclock::is_left(word)) ||
          proclock::mode_of(word) != Mode::kExclusive)
        continue;
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

  bool is_entered(const Process& process) override {
    const uint32_t used = Segment::get().header().processes.used.latest();
    for (uint32_t index = 1; index <= used; index++) {
      const auto& entry = Segment::get().process(index);
      if (entry.state.latest() == static_cast<uint32_t>(proclock::ProcessState::kLive) &&
          Segment::get().owner(entry.number.latest()) == &process)
        return true;
    }
    return false;
  }

  // Only one thread of a process at a time is on its way into the latch, or in it.
  bool is_inside(const Actor& actor) override {
    const uint64_t number = static_cast<const Host*>(actor.process)->memory.number();
    return actor.mutexes != 0 && proclock::latch_owner(Segment::get().header().latch.latest()) == number;
  }

  // Until the latch is to be had again. Where nobody is stopped or dies, nobody needs the deadline of a sleep before it: somebody
  // who has it, or was woken, comes to wake the next one.
  void busy() override {
    const auto& latch = Segment::get().header().latch;
    if (the_machine.deaths == 0 && the_machine.stops == 0 && proclock::latch_owner(latch.latest()) == 0) {
      for (const Actor& actor : the_machine.actors()) {
        if (actor.state == State::kAsleep && actor.sleeps_on_word(&latch))
          the_machine.fail("somebody sleeps for the latch, and nobody has it");
      }
    }
    for (Truth& truth : truths) truth.idle_since_ns = 0;
  }

  // Nobody does anything: whoever is first in a queue must be kept out by somebody who holds. If somebody is stopped, it may
  // be the one to do something about it, or nobody may have asked yet who has died; but not for ever.
  void quiet() override {
    counts.quiets++;
    const uint32_t unresponsive = count_unresponsive();
    const bool somebody_stopped = unresponsive != 0;
    // What a dead owner of the latch has left half done is mended by the next that wants to get in, which is asked for by those
    // that wait, not by those that died.
    const bool dead_inside = proclock::latch_owner(Segment::get().header().latch.latest()) != 0;
    const bool at_once = !somebody_stopped && !slow_detection && !dead_inside;
    const uint64_t patience_ns = (slow_detection || dead_inside ? kNoticedNs : 0) +
                                 (unresponsive == 0 ? 0 : (unresponsive + 1) * kPassedOverNs) +
                                 (may_be_unwatched(unresponsive) ? kSeldomTickNs : 0);
    for (int n = 0; n < kNamesMax; n++) {
      Truth& truth = truths[n];
      if (!sleeps_for_nothing(n, somebody_stopped)) {
        truth.idle_since_ns = 0;
        continue;
      }
      if (at_once) the_machine.fail("a waiter sleeps, and nobody keeps it out");
      if (truth.idle_since_ns == 0) truth.idle_since_ns = the_machine.now_ns;
      if (the_machine.now_ns - truth.idle_since_ns > patience_ns)
        the_machine.fail(unresponsive == 0 ? "a waiter sleeps for too long, and nobody keeps it out"
                                           : "a stopped waiter holds up the others");
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
  // Whose end is not told to those that wait: they find out by their ticks.
  bool slow_detection = false;
  bool anybody_looks_seldom = false;
  bool anybody_left = false;  // a thread that ended: its place in a queue may be taken away at any time
  // The slot of another wait of each thread, and whether it looks at it: not while it is blocked in a synchronous one.
  uint32_t seconds[kActorsMax];
  bool serves[kActorsMax];

 private:
  bool is_unserved(uint32_t slot) const {
    for (int n = 0; n < kActorsMax; n++) {
      if (seconds[n] == slot) return !serves[n];
    }
    return false;
  }
  // Where all look seldom, one that waits behind is told to look more often: that one may be stopped as well, or die.
  bool may_be_unwatched(uint32_t unresponsive) const {
    return anybody_looks_seldom && unresponsive != 0 && the_machine.stops + the_machine.deaths > 1;
  }
  // Threads that are stopped, or do not look at a wait of theirs.
  uint32_t count_unresponsive() const {
    uint32_t count = 0;
    for (const Actor& actor : the_machine.actors()) {
      const bool lives = actor.state != State::kDead && actor.state != State::kDone;
      count += actor.state == State::kStopped || (lives && seconds[actor.id] != 0 && !serves[actor.id]);
    }
    return count;
  }
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
    SIM_CHECK(arena.clear_abandoned(ref) == Status::kOk);
    SIM_CHECK(arena.release(ref) == Status::kOk);
    SIM_CHECK(arena.try_acquire(ref, Mode::kShared, Turn::kInOrder, &last) == Try::kAcquired);
    SIM_CHECK(last == token);
    SIM_CHECK(arena.try_acquire(other, Mode::kShared, Turn::kInOrder, &last) == Try::kAcquired);
    SIM_CHECK(arena.release(ref) == Status::kOk);
    SIM_CHECK(arena.release(other) == Status::kOk);
    SIM_CHECK(arena.unbind(other) == Status::kOk);
    SIM_CHECK(arena.unbind(ref) == Status::kOk);
  }

  // Where nobody is stopped, dies or leaves: strict FIFO for who asked for it, and for everybody else one barge interval after the front changed. Only where reads are
  // not old: a newcomer that has not seen the queue yet may pass it.
  void check_overtaking(const Truth& truth, int me, Mode mode, uint64_t begun_ns) {
    if (the_machine.plan().weak || the_machine.stops != 0 || the_machine.deaths != 0 || anybody_left) return;
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
    const uint32_t used = Segment::get().header().slots.used.latest();
    for (uint32_t n = 0; n < used && first != 0 && !is_awake(first); n++)
      first = auditor.slot(first).queue_next.latest();
    if (first == 0 || !is_awake(first)) return false;
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
  bool is_awake(uint32_t slot) const {
    const BasicAuditor<Platform> auditor(Segment::get().base());
    const auto& entry = auditor.slot(slot);
    const uint64_t word = entry.word.latest();
    const Process* owner = Segment::get().owner_of(word);
    if (owner == nullptr || !owner->open || proclock::is_left(word) || is_unserved(slot)) return false;
    if ((entry.flags.latest() & proclock::kSlotGranted) != 0) return false;  // it has what it waited for
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
      const Process* process = Segment::get().owner_of(slot.word.latest());
      if (process == nullptr || !process->open) continue;
      if (proclock::holds(value, Mode::kExclusive) || proclock::holds(slot.word.latest(), Mode::kExclusive)) {
        the_machine.fail("two slots say HELD that exclude each other");
      }
    }
  }

  // A name with a mark makes room only where there is no other room.
  static void unnamed(const void* word);

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
      const uint64_t word = slot.word.latest();
      if (slot.lock.latest() == 0) continue;
      if (!proclock::refers(word) || proclock::storage_of(word) != storage) continue;
      if (proclock::phase_of(word) == Phase::kTrying || proclock::is_left(word)) continue;
      const Process* process = Segment::get().owner_of(word);
      if (process != nullptr && process->open)
        the_machine.fail("a storage is initialised though a slot refers to it (INV-3)");
    }
  }
};

inline World the_world;

inline void World::unnamed(const void* word) {
  const BasicAuditor<Platform> auditor(Segment::get().base());
  const uint32_t used = Segment::get().header().locks.used.latest();
  uint32_t reclaimed = 0;
  bool other_room = !Segment::get().full;
  for (uint32_t index = 1; index <= used; index++) {
    const auto& lock = auditor.lock(index);
    if (&lock.name_bytes == word) {
      reclaimed = index;
    } else if ((lock.name_bytes.latest() & proclock::kNameUsed) != 0 && lock.slots_head.latest() == 0 &&
               lock.abandoned.latest() == 0) {
      other_room = true;
    }
  }
  if (reclaimed == 0 || auditor.lock(reclaimed).abandoned.latest() == 0) return;
  if (other_room) the_machine.fail("a mark made room, and there was other room");
  const int n = the_world.number_of(reclaimed);
  if (n < 0) return;
  the_world.truths[n].abandoned = Truth::Mark::kNo;
  the_world.truths[n].looks++;
  the_world.counts.marks_dropped++;
}

// ---- a thread, as the client drives the core

struct Request {
  Mode mode = Mode::kShared;
  bool fair = false;
  bool async = false;
  uint64_t patience_ns = kForever;  // 0: tries once
  bool twice = false;               // another wait of the same thread in the same queue
  bool leaves = false;              // its thread ends instead of withdrawing
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
  bool release(int n) {
    actor_->doing = "release";
    the_machine.begins();
    const SlotRef& ref = refs_[n];
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

  // The thread ends while it holds, or is in the queue. Its slots are gone with it; what it has left is recovered by itself if
  // it gets the latch, and if it does not, or does not care, by somebody else.
  void leave(int n) {
    actor_->doing = "leave";
    the_machine.begins();
    Truth& truth = the_world.truths[n];
    const bool held = truth.holds[actor_->id].in && mode_ == Mode::kExclusive && !the_world.is_robbed(n);
    const uint64_t looks = truth.looks;
    if (held && truth.abandoned != Truth::Mark::kYes) truth.abandoned = Truth::Mark::kEither;
    the_world.leaves(n);
    const bool was_leaving = owes_settle_;
    owes_settle_ = false;
    arena().leave(refs_[n]);
    // Who robs it at this moment has taken a lock that nobody left; who came since has looked.
    if (held && truth.looks == looks && truth.stealing == 0 && !truth.thief_died)
      truth.abandoned = Truth::Mark::kYes;
    refs_[n] = SlotRef();
    second_.leave(*this);
    if (was_leaving) the_world.left(n);
    the_world.counts.left++;
    the_world.anybody_left = true;
    if (!the_world.slow_detection) {
      SIM_CHECK(patiently([&] { return arena().recover_left(); }) == Status::kOk);
    } else if (random.one_in(2)) {
      const Status status = arena().recover_left();
      SIM_CHECK(ok(status) || status == Status::kStalled);
    }
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
    change_mark(n, Truth::Mark::kNo, [&] { return arena().clear_abandoned(ref); });
  }

  // Sleeps outside of any operation.
  void rest(uint64_t ns) { the_machine.sleep(nullptr, the_machine.now_ns + ns, true); }

  // Either asks, or was told whose pid is gone.
  void look_for_dead() {
    actor_->doing = "recover";
    const bool told = random.one_in(2);
    for (uint32_t index = 1; index <= arena().processes_used(); index++) {
      if (!told) {
        SIM_CHECK(patiently([&] { return arena().recover_if_dead(index); }) == Status::kOk);
        continue;
      }
      const uint64_t number = Segment::get().process(index).number.latest();
      const Process* owner = Segment::get().owner(number);
      if (owner == nullptr || owner->open) continue;
      SIM_CHECK(patiently([&] { return arena().recover_dead(index, number); }) == Status::kOk);
    }
  }

  void takes_turns(bool yes) { takes_turns_ = yes; }

  // Everything back, and if nobody else is there, the process as well.
  void finish() {
    second_.withdraw(*this);
    for (int n = 0; n < World::kNamesMax; n++) close(n);
    if (host_->threads > 1 || host_->dying) return;
    actor_->doing = "detach";
    const Status status = patiently([&] { return arena().detach(); });
    // What its threads have left and nobody has recovered yet is found when the process is gone.
    SIM_CHECK(ok(status) || (status == Status::kBusy && the_world.slow_detection));
    if (!ok(status)) return;
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
    const uint32_t flags =
        (request.fair ? proclock::kSlotFair : 0) | (request.async ? proclock::kSlotAsync : 0);
    actor_->doing = request.mode == Mode::kExclusive ? "wait exclusive" : "wait shared";
    Status status = patiently([&] { return arena().enqueue(ref, request.mode, flags); });
    SIM_CHECK(ok(status) || status == Status::kAgain);
    the_world.waits(n, ref, request.mode, request.fair);
    if (request.twice) second_.begin(*this, n);
    uint64_t token = 0;
    bool told = ok(status);  // an asynchronous waiter reacts when it is told to
    uint64_t tick_ns = the_machine.now_ns + kTickNs;
    for (;;) {
      auto& bell = request.async ? *arena().doorbell() : ref.slot->wake;
      uint32_t seen = bell.load(std::memory_order_acquire);  // W1
      actor_->notified = false;
      if (request.async) {
        take_pokes();
        told = host_->was_told(ref.slot_index) || told;
        second_.serve(*this);
      }
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
        give_up(n, request.leaves);
        return false;
      }
      if (sleep_on(bell, seen, std::min(deadline, tick_ns)))
        tick_ns = std::min(tick_ns, the_machine.now_ns + kTickNs);
      actor_->doing = request.mode == Mode::kExclusive ? "wait exclusive" : "wait shared";
      if (the_machine.now_ns >= tick_ns) tick_ns = the_machine.now_ns + tick(n, request.async);
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

  void give_up(int n, bool leaves) {
    the_world.waits_no_more(n);
    // Before the slot is given back: it may be another thread's by then.
    host_->was_told(refs_[n].slot_index);
    if (leaves) {
      leave(n);
    } else {
      actor_->doing = "withdraw";
      SIM_CHECK(patiently([&] { return arena().withdraw(refs_[n]); }) == Status::kOk);
    }
    the_world.left(n);
    the_world.counts.timeouts++;
  }

  // What a waiter does beside: passes over those that do not react, and looks for the dead in one of the two ways there are.
  // The time until it does so again.
  uint64_t tick(int n, bool async) {
    actor_->doing = "tick";
    const auto check = [](Status status) { SIM_CHECK(ok(status) || status == Status::kStalled); };
    const uint32_t lock = refs_[n].lock_index;
    proclock::PokeSeen& seen = seen_[n];
    check(arena().open_barrier_if_overdue(lock, &seen));
    if (takes_turns_) {
      arena().want(lock);
      check(arena().tick(&scan_));
    } else {
      check(arena().look(lock));
    }
    // Who waits synchronously ticks all the time, and so does who is told of no death.
    if (!async || the_world.slow_detection || !arena().is_quiet(lock, &seen, kQuietNs)) return kTickNs;
    arena().announce_quiet(lock);
    if (!arena().is_quiet(lock, &seen, kQuietNs)) return kTickNs;
    the_world.anybody_looks_seldom = true;
    return kSeldomTickNs;
  }

  Status react(const SlotRef& ref, Mode mode, uint64_t* token) {
    return patiently([&] { return arena().react(ref, mode, token); });
  }

  void settle(int n) {
    SIM_CHECK(patiently([&] { return arena().settle_grant(refs_[n]); }) == Status::kOk);
    owes_settle_ = false;
  }

  // As the doorbell's thread does it.
  void take_pokes() {
    std::vector<uint32_t> slots;
    SIM_CHECK(patiently([&] { return arena().take_poked(&slots); }) == Status::kOk);
    if (!slots.empty()) host_->poked(slots);
    actor_->notified = false;
  }

  // As the client's threads together: one sleeps on a word; a death is looked into by another, which does not wake it. True:
  // something happened, and it was not the time that passed.
  bool sleep_on(Platform::Atomic<uint32_t>& word, uint32_t seen, uint64_t until_ns) {
    Actor& self = *actor_;
    self.outside = true;
    the_machine.about_to_sleep();
    self.outside = false;
    the_machine.full_fence();
    the_machine.compared(&word, word.latest());
    self.listens_to = &word;
    self.woken = word.latest() != seen;
    the_world.serves[self.id] = &word == arena().doorbell();
    while (!self.woken && !self.notified && the_machine.now_ns < until_ns) {
      if (gone_seen_ == the_machine.gone || the_machine.plan().blind) {
        the_machine.sleep(&word, until_ns, true);
      } else {
        gone_seen_ = the_machine.gone;
        look_for_dead();
      }
    }
    self.listens_to = nullptr;
    the_world.serves[self.id] = false;
    the_machine.full_fence();
    return self.woken || self.notified;
  }

  // Another asynchronous wait of the thread in a queue in which it waits already. When it is granted, it releases at once.
  class Second {
   public:
    void begin(Thread& thread, int n) {
      if (in_ ||
          !ok(thread.arena().bind(thread.ref(n).lock_index, static_cast<uint32_t>(thread.actor_->id), &ref_)))
        return;
      mode_ = thread.random.one_in(2) ? Mode::kShared : Mode::kExclusive;
      in_ = true;
      n_ = n;
      the_world.seconds[thread.actor_->id] = ref_.slot_index;
      const Status status =
          patiently([&] { return thread.arena().enqueue(ref_, mode_, proclock::kSlotAsync); });
      told_ = ok(status);
      the_world.truths[n].left_ns = the_machine.now_ns;
    }
    bool serve(Thread& thread) {
      if (!in_) return true;
      told_ = thread.host_->was_told(ref_.slot_index) || told_;
      if (!told_) return false;
      told_ = false;
      thread.actor_->doing = "the second wait";
      Arena& arena = thread.arena();
      uint64_t token;
      const Status status = thread.react(ref_, mode_, &token);
      if (!ok(status)) return false;
      the_world.truths[n_].leaving++;
      SIM_CHECK(patiently([&] { return arena.settle_grant(ref_); }) == Status::kOk);
      the_world.left(n_);
      Status released = arena.release(ref_);
      if (released == Status::kStalled) released = patiently([&] { return arena.release_duty(ref_); });
      SIM_CHECK(ok(released) || released == Status::kStolen);
      end(thread);
      return true;
    }
    void leave(Thread& thread) {
      if (!in_) return;
      thread.host_->was_told(ref_.slot_index);
      thread.arena().leave(ref_);
      is_over(thread);
    }
    void withdraw(Thread& thread) {
      if (!in_) return;
      the_world.truths[n_].leaving++;
      SIM_CHECK(patiently([&] { return thread.arena().withdraw(ref_); }) == Status::kOk);
      the_world.left(n_);
      end(thread);
    }

   private:
    void end(Thread& thread) {
      thread.host_->was_told(ref_.slot_index);
      SIM_CHECK(patiently([&] { return thread.arena().unbind(ref_); }) == Status::kOk);
      is_over(thread);
    }
    void is_over(Thread& thread) {
      the_world.seconds[thread.actor_->id] = 0;
      in_ = false;
    }
    SlotRef ref_;
    Mode mode_ = Mode::kShared;
    bool in_ = false, told_ = false;
    int n_ = 0;
  };

  Host* host_;
  Actor* actor_;
  Second second_;
  proclock::PokeSeen seen_[World::kNamesMax];
  proclock::ScanSeen scan_;
  bool takes_turns_ = false;
  SlotRef refs_[World::kNamesMax];
  Mode mode_ = Mode::kShared;
  bool owes_settle_ = false;
  uint32_t gone_seen_ = 0;
};

}  // namespace sim
