// Threads that wait in circles, and others that only look like it. The truth is kept outside: who holds and who waits, by what
// the threads themselves know.
//
// In a circle each thread holds a name, and waits for that of the next one. Checked are: nobody fails, and nobody warns, who is in no
// circle at that moment; of a circle in which nobody dies or times out exactly one fails, the right one, or each process with a
// member warns once; and every wait ends.
#pragma once

#include <optional>

#include "sim_thread.h"

namespace sim {

class Circle {
 public:
  enum class Kind {
    kCircle,   // of two to four
    kBarred,   // a reader waits for a writer, who waits for a reader
    kOrdered,  // all take their names in one order: there is no circle
    kLast,
  };

  void run(uint64_t seed) {
    running_ = this;
    seed_ = seed;
    the_machine.describe = &Circle::describe;
    Random random(seed);
    kind_ = static_cast<Kind>(random.below(static_cast<uint32_t>(Kind::kLast)));
    size_ = kind_ == Kind::kBarred ? 3 : 2 + static_cast<int>(random.below(3));
    const Plan plan = plan_of(random);
    the_machine.begin(plan, random.next(), nullptr, &the_world);
    the_world.begin();
    the_world.slow_detection = plan.blind;
    ready_ = failed_ = 0;
    closed_ = false;
    for (int& count : warned_) count = 0;
    // All of them block, or none, or some.
    const uint32_t blocking = random.below(3);
    const bool asks = random.one_in(2);
    const bool times_out = random.one_in(4);
    anybody_times_out_ = false;
    Host* host = nullptr;
    for (int n = 0; n < size_; n++) {
      if (host == nullptr || random.one_in(2)) {
        host = &the_world.add_host();
        host->attach();
      }
      Role& role = roles_[n];
      role.circle = this;
      role.place = n;
      role.host = static_cast<int>(the_world.hosts.size()) - 1;
      role.request = Request();
      role.request.async = blocking == 0 || (blocking == 1 && random.one_in(2));
      role.request.mode = Mode::kExclusive;
      if (asks && random.one_in(2)) role.request.flags |= proclock::kSlotThrows;
      if (random.one_in(3)) role.request.flags |= proclock::kSlotEnds;
      if (times_out && random.one_in(2)) {
        role.request.flags |= proclock::kSlotEnds;
        role.request.patience_ns =
            random.one_in(2) ? random.up_to_power(31) : kLookNs + random.up_to_power(31);
        anybody_times_out_ = true;
      }
      role.rest_ns = random.one_in(2) ? random.up_to_power(31) : random.up_to_power(20);
      Actor& actor = the_machine.add_actor(*host, &Circle::play, &role);
      role.thread.emplace(*host, actor);
      role.thread->random = Random(random.next());
      role.thread->takes_turns(random.one_in(2));
      for (int name = 0; name < names(); name++) role.thread->open(name);
    }
    the_machine.run();
    check_end();
    the_world.inspect();
  }

 private:
  struct Role final : Watcher {
    Circle* circle = nullptr;
    int place = 0;
    int host = 0;
    Request request;
    uint64_t rest_ns = 0;
    std::optional<Thread> thread;
    // Of its wait.
    uint64_t begun_ns = 0;
    uint64_t looks_ns = 0;
    uint64_t deaf_until_ns = 0;
    proclock::CycleSeen seen;
    bool failed = false;

    bool ends(int name) override { return circle->ends(*this, name); }
  };
  static constexpr uint64_t kLookNs = 1000000000;
  static constexpr uint64_t kEndNs = 60000000000;

  int names() const { return kind_ == Kind::kBarred ? 2 : size_; }

  static Plan plan_of(Random& random) {
    Plan plan;
    plan.weak = random.one_in(2);
    plan.stale_one_in = 2 + random.below(4);
    plan.by_priority = random.one_in(3);
    plan.priority_changes = random.below(8);
    plan.switch_mean = 16u << random.below(8);
    plan.deaths = random.one_in(2) ? 0 : 1 + random.below(2);
    plan.stops = random.one_in(3) ? random.below(3) : 0;
    plan.magnitude = 10 + random.below(8);
    plan.in_latch = random.one_in(3);
    plan.blind = random.one_in(5);
    return plan;
  }

  static void play(Actor&, void* argument) {
    Role& role = *static_cast<Role*>(argument);
    role.circle->play(role);
  }

  // What it holds, and what it waits for then; -1: holds nothing.
  std::pair<int, int> names_of(const Role& role) const {
    if (kind_ == Kind::kBarred) {
      if (role.place == 2) return {-1, 0};
      return {role.place, 1 - role.place};
    }
    const int next = (role.place + 1) % size_;
    if (kind_ == Kind::kOrdered) return {std::min(role.place, next), std::max(role.place, next)};
    return {role.place, next};
  }

  void play(Role& role) {
    Thread& thread = *role.thread;
    const auto [has, wants] = names_of(role);
    Request request;
    request.mode = kind_ == Kind::kBarred && role.place == 0 ? Mode::kShared : Mode::kExclusive;
    if (has >= 0) {
      thread.acquire(has, request);
      thread.settle_owed(has);
    }
    ready_++;
    if (kind_ == Kind::kOrdered) {
      thread.rest(role.rest_ns);
    } else {
      // Those that wait for the first one have to come in their order.
      const int turn = kind_ == Kind::kBarred && role.place != 2 ? size_ + 1 : size_;
      for (int rounds = 0; ready_ < turn && rounds < 100; rounds++) thread.rest(50000000);
    }
    if (kind_ == Kind::kBarred) {
      if (role.place == 1) role.request.mode = Mode::kShared;
      if (role.place == 2) role.request.fair = true;
    }
    role.begun_ns = the_machine.now_ns;
    role.looks_ns = role.begun_ns + kLookNs;
    role.deaf_until_ns = 0;
    role.seen = {};
    role.failed = false;
    role.request.watcher = &role;
    const bool got = thread.acquire(wants, role.request);
    if (got) {
      if (thread.random.one_in(2)) thread.rest(thread.random.up_to_power(31));
      thread.release(wants);
    }
    if (has >= 0) thread.release(has);
    thread.finish();
  }

  // As lib/ does it: looks each second, or soon after it has found something.
  bool ends(Role& role, int name) {
    if (kind_ == Kind::kBarred && role.place == 2 && ready_ == size_) ready_++;  // the writer is queued
    if (the_machine.now_ns - role.begun_ns > kEndNs) the_machine.fail("a wait has no end");
    closed_ = closed_ || is_closed();
    if (hears(role, name)) return true;
    if (gives_up(role)) return true;
    if (the_machine.now_ns < role.looks_ns) return false;
    Thread& thread = *role.thread;
    const int has = names_of(role).first;
    std::vector<Arena::Owned> owned;
    const bool wanted = has >= 0 && thread.arena().is_wanted(thread.ref(has));
    role.looks_ns = the_machine.now_ns + kLookNs;
    if (!wanted) return false;
    if (role.request.async) owned.push_back({static_cast<uint32_t>(role.place) + 1, thread.ref(has)});
    const Status status = thread.arena().look_for_cycle(thread.ref(name), owned, &role.seen);
    SIM_CHECK(ok(status) || status == Status::kStalled);
    if (role.seen.is_new || status == Status::kStalled) role.looks_ns = the_machine.now_ns + kTickNs;
    return hears(role, name);
  }

  bool hears(Role& role, int name) {
    Arena& arena = role.thread->arena();
    const SlotRef& ref = role.thread->ref(name);
    const uint32_t told = arena.told_of_cycle(ref);
    if (told == 0) return false;
    // A busy event loop hears of it later, when it may be over.
    if (role.deaf_until_ns == 0)
      role.deaf_until_ns =
          the_machine.now_ns + (role.thread->random.one_in(2) ? 0 : role.thread->random.up_to_power(30));
    if (the_machine.now_ns < role.deaf_until_ns) return false;
    const uint64_t changes = the_world.changes;
    std::vector<proclock::HolderInfo> cycle;
    std::unordered_map<uint32_t, proclock::LockName> lock_names;
    const Status status = arena.cycle_of(ref, &cycle, &lock_names);
    if (status == Status::kStalled) return false;
    SIM_CHECK(ok(status));
    if (cycle.empty()) return false;
    if (changes == the_world.changes && !reaches_itself(role.place))
      the_machine.fail("accused, and in no circle");
    if ((told & proclock::kSlotVictim) == 0) {
      warned_[role.host]++;
      warned_ns_ = the_machine.now_ns;
      return false;
    }
    if (changes == the_world.changes && !is_right(role)) the_machine.fail("another one should have failed");
    role.failed = true;
    failed_++;
    return true;
  }

  // Of a circle of which everybody was told, one gives way.
  bool gives_up(const Role& role) const {
    if (failed_ != 0 || the_machine.now_ns < warned_ns_ + 3 * kLookNs) return false;
    for (int n = 0; n < size_; n++) {
      if (warned_[roles_[n].host] == 0) return false;
    }
    return role.place == 0;
  }

  // ---- the truth

  int actor_of(int place) const { return roles_[place].thread->id(); }
  bool waits_for(int place, int other) const {
    for (int n = 0; n < names(); n++) {
      const Truth& truth = the_world.truths[n];
      const Truth::Wait& mine = truth.waits[actor_of(place)];
      if (!mine.in) continue;
      if (place != other && truth.holds[actor_of(other)].excludes(mine.mode)) return true;
      const Truth::Wait& theirs = truth.waits[actor_of(other)];
      const bool excludes = mine.mode == Mode::kExclusive || theirs.mode == Mode::kExclusive;
      if (place != other && theirs.in && excludes &&
          static_cast<int32_t>(mine.slot->ticket.latest() - theirs.slot->ticket.latest()) > 0)
        return true;
    }
    return false;
  }
  bool reaches_itself(int place) const {
    bool reached[World::kNamesMax] = {};
    std::vector<int> open = {place};
    while (!open.empty()) {
      const int from = open.back();
      open.pop_back();
      for (int to = 0; to < size_; to++) {
        if (reached[to] || !waits_for(from, to)) continue;
        reached[to] = true;
        open.push_back(to);
      }
    }
    return reached[place];
  }
  bool is_closed() const {
    for (int n = 0; n < size_; n++) {
      if (!reaches_itself(n)) return false;
    }
    return true;
  }
  // Did the right one fail, of a circle of all?
  bool is_right(const Role& role) const {
    bool certain = true;
    for (int n = 0; n < size_; n++) certain = certain && !roles_[n].request.async;
    const auto may = [&](const Role& one) {
      return certain || (one.request.flags & proclock::kSlotThrows) != 0;
    };
    const auto ends = [](const Role& one) { return (one.request.flags & proclock::kSlotEnds) != 0; };
    if (!may(role)) return false;
    for (int n = 0; n < size_; n++) {
      const Role& other = roles_[n];
      if (&other == &role || !may(other)) continue;
      if (ends(role) && !ends(other)) return false;
      if (ends(role) == ends(other) && static_cast<int32_t>(ticket_of(other) - ticket_of(role)) > 0)
        return false;
    }
    return true;
  }
  uint32_t ticket_of(const Role& role) const {
    return the_world.truths[names_of(role).second].waits[actor_of(role.place)].slot->ticket.latest();
  }

  void check_end() {
    if (failed_ > 1) the_machine.fail("two of a circle have failed");
    if (kind_ == Kind::kOrdered && failed_ != 0) the_machine.fail("one has failed, and there was no circle");
    for (int n = 0; n < size_; n++) {
      if (warned_[roles_[n].host] > 1) the_machine.fail("a process was told twice");
      if (warned_[roles_[n].host] != 0 && failed_ != 0) the_machine.fail("told, though one has failed");
    }
    if (!closed_ || the_machine.deaths != 0 || anybody_times_out_) return;
    const bool all_warned =
        std::all_of(roles_, roles_ + size_, [&](const Role& r) { return warned_[r.host] == 1; });
    if (failed_ == 0 && !all_warned) the_machine.fail("a circle that nobody has told of");
    the_world.counts.refused += failed_;
  }

  static const char* describe() {
    static char text[128];
    snprintf(text, sizeof text, "circle of kind %d, size %d, seed %llu; again with PROCLOCK_SIM_CIRCLE=%llu",
             static_cast<int>(running_->kind_), running_->size_,
             static_cast<unsigned long long>(running_->seed_),
             static_cast<unsigned long long>(running_->seed_));
    return text;
  }

  static inline Circle* running_ = nullptr;
  uint64_t seed_ = 0;
  Kind kind_ = Kind::kCircle;
  int size_ = 0;
  Role roles_[World::kNamesMax];
  int ready_ = 0;                // hold what they have first
  int failed_ = 0;               // with a deadlock
  int warned_[kActorsMax] = {};  // by process
  uint64_t warned_ns_ = 0;
  bool closed_ = false;  // all were in a circle at some moment
  bool anybody_times_out_ = false;

 public:
  bool closed() const { return closed_; }
  int failed() const { return failed_; }
  bool warned() const {
    return std::any_of(warned_, warned_ + kActorsMax, [](int count) { return count != 0; });
  }
};

}  // namespace sim
