// Simulated processes over one segment, and the truth about every lock, which is kept outside of it and compared with what it
// says.
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
    bool upgrades = false;  // holds, and is ahead of the queue
  } waits[kActorsMax];
  uint64_t left_ns = 0;    // when somebody last left the queue, and others moved up
  int leaving = 0;         // are about to
  uint64_t upgrading = 0;  // are in the middle of an upgrade
  uint64_t upgrades_begun = 0;
  uint64_t looks = 0;          // how often the mark was looked at, or dropped
  uint64_t idle_since_ns = 0;  // since when somebody waits for nobody but a stopped one; 0: nobody does
};

struct Counts {
  uint64_t grants = 0, timeouts = 0, refused = 0, deaths_holding = 0, steals = 0, robbed = 0, downgrades = 0,
           quiets = 0, left = 0, marks_dropped = 0, upgrades = 0, upgrades_refused = 0;
};

class World final : public Machine::Observer {
 public:
  static constexpr int kNamesMax = 4;

  void begin() {
    Segment::get().reset();
    hosts.clear();
    for (Truth& truth : truths) truth = Truth();
    slow_detection = anybody_left = false;
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
  void leaves(int n) {
    truths[n].holds[the_machine.current().id].in = false;
    changes++;
  }
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
    changes++;
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
    changes++;
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

  void quiet() override;

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

  void inspect();

  std::vector<std::unique_ptr<Host>> hosts;
  Truth truths[kNamesMax];
  Counts counts;
  // Whose end is not told to those that wait: they find out by their ticks.
  bool slow_detection = false;
  uint64_t changes = 0;       // of who holds, or waits, that may have ended a circle
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
  // Until then nothing happens any more.
  static uint64_t next_ns() {
    uint64_t next = kForever;
    for (const Actor& actor : the_machine.actors()) {
      if (actor.state == State::kAsleep || actor.state == State::kStopped)
        next = std::min(next, actor.until_ns);
    }
    return std::max(next, the_machine.now_ns);
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
  void inspect_lock(Host& inspector, int n);

  void check_overtaking(const Truth& truth, int me, Mode mode, uint64_t begun_ns);

  bool sleeps_for_nothing(int n, bool somebody_stopped) const;
  bool is_awake(uint32_t slot) const;

  static void check_held(const void* word, uint64_t value);

  // A name with a mark makes room only where there is no other room.
  static void unnamed(const void* word);

  static void check_initialise(const Platform::RwLock* rwlock);
};

inline World the_world;

}  // namespace sim

#include "sim_world_checks.h"
