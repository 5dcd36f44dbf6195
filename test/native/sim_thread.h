// A thread of a simulated process, as the client drives the core.
#pragma once

#include "sim_world.h"

namespace sim {

// Who may end a wait before its time.
class Watcher {
 public:
  virtual bool ends(int name) = 0;

 protected:
  ~Watcher() = default;
};

struct Request {
  Mode mode = Mode::kShared;
  bool fair = false;
  bool async = false;
  uint64_t patience_ns = kForever;  // 0: tries once
  bool twice = false;               // another wait of the same thread in the same queue
  bool leaves = false;              // its thread ends instead of withdrawing
  uint32_t flags = 0;               // of the slot, beside
  Watcher* watcher = nullptr;
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
    settle_owed(n);
    if (status == Status::kStalled) status = patiently([&] { return arena().release_duty(ref); });
    SIM_CHECK(status == Status::kOk || (status == Status::kStolen && the_world.counts.steals != 0));
    the_world.counts.robbed += status == Status::kStolen;
    return status == Status::kOk;
  }

  // Before it takes another one: what it owes is of one name.
  void settle_owed(int n) {
    if (!owes_settle_) return;
    settle(n);
    the_world.left(n);
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

  // From shared to exclusive; 0: at once or not at all. False: it is shared as before, or was robbed.
  bool upgrade(int n, uint64_t patience_ns);

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
    change_mark(n, Truth::Mark::kNo, [&] { return arena().finish(ref, proclock::Finished::kRepair); });
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
  int id() const { return actor_->id; }
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

  bool wait(int n, const Request& request, uint64_t begun);

  void give_up(int n, bool leaves);

  Status wait_to_upgrade(int n, uint64_t deadline, uint64_t* token);

  uint64_t tick(int n, bool async);

  Status react(const SlotRef& ref, Mode mode, uint64_t* token) {
    return patiently([&] { return arena().react(ref, mode, token); });
  }

  void settle(int n) {
    SIM_CHECK(patiently([&] { return arena().settle_grant(refs_[n]); }) == Status::kOk);
    owes_settle_ = false;
  }

  void take_pokes();

  bool sleep_on(Platform::Atomic<uint32_t>& word, uint32_t seen, uint64_t until_ns);

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

#include "sim_thread_waits.h"
