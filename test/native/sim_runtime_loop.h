// A JavaScript thread on the simulated machine: an event loop over one client, as lib/shm/ready.ts and wait.ts drive it.
#pragma once

#include <deque>
#include <optional>

#include "sim_runtime_world.h"

namespace sim {

// Odds in percent.
struct Habits {
  int namespaces = 1;
  int names = 1;  // each
  int rounds = 3;
  int exclusive = 60;
  int waits = 90;  // rather than one try
  int blocks = 0;  // of those that wait: synchronously
  int fair = 10;
  int timeout = 20;    // of those that wait
  int rests = 50;      // while it holds
  int slow_rests = 0;  // of some ticks
  int long_rests = 0;  // so long that those who wait look seldom
  int busy = 0;        // the event loop, between two turns
  int pauses = 0;      // before a request, and as long as a namespace is served after the last wait in it
  int downgrade = 0;
  int clear = 0;
  int steal = 0;
  int listens = 0;  // to a theft
  int looks = 30;   // who was refused
  int closes = 0;
  int ends = 0;  // the thread, in the middle of all that; another one begins
  int many = 0;  // another request while others wait
};

class Loop final : public Thread {
 public:
  Loop(Host& host, uint32_t number, const Habits& habits, uint64_t seed)
      : Thread(host, number), habits_(habits), random_(seed), rounds_left_(habits.rounds) {
    host.loops++;
  }
  void runs_on(Actor& actor) { actor_ = &actor; }
  static void play(Actor&, void* self) { static_cast<Loop*>(self)->run(); }

  bool is_robbed(uint32_t hold) override {
    return the_machine.peek(
        [&] { return client_.has_value() && client_->check_hold(hold) == Status::kStolen; });
  }

  bool retries() const override { return retry_ns_ != kForever; }
  bool misses_theft() override {
    return std::any_of(listened_.begin(), listened_.end(), [&](uint32_t hold) { return is_robbed(hold); });
  }

 private:
  struct Wait {
    int32_t index;  // < 0: has no place in the queue yet
    int lock;
    uint32_t key;
    uint64_t deadline_ns;
    bool steals;
    bool ended;
  };
  struct Hold {
    uint32_t index;
    int lock;
    Mode mode;
    uint64_t until_ns;
  };
  static constexpr uint32_t kExclusive = Client::kKeyExclusive;
  static constexpr size_t kWaitsMax = 5;

  bool odds(int percent) { return static_cast<int>(random_.below(100)) < percent; }
  static uint64_t now() { return the_machine.now_ns; }

  void run() {
    begin();
    while (turn()) {
    }
    doing("closes");
    for (int lock = 0; lock < kLocksMax; lock++) close(lock);
    SIM_CHECK(client_->async_waits() == 0);
    SIM_CHECK(report_.owed == 0);
    client_.reset();
    if (--host_.loops == 0) the_machine.end_process();
  }
  void begin() {
    client_.emplace(*host_.runtime, number_, &report_, &Loop::notify, this);
    for (int64_t& id : opened_) id = -1;
  }
  void doing(const char* what) { actor_->doing = what; }

  // ---- the event loop

  // From any thread.
  static void notify(void* data) {
    Loop& loop = *static_cast<Loop*>(data);
    loop.notified_ = true;
    loop.told_.fetch_add(1, std::memory_order_release);
    Platform::wake(&loop.told_);
  }
  // False: there is nothing left to do.
  bool turn() {
    const uint32_t seen = told_.load(std::memory_order_acquire);
    if (notified_) {
      notified_ = false;
      drain();
    }
    run_timers();
    if (odds(habits_.ends) && rounds_left_ > 0) end_thread();
    if (rounds_left_ > 0 && now() >= pause_ns_ &&
        (waits_.empty() || (waits_.size() < kWaitsMax && odds(habits_.many)))) {
      rounds_left_--;
      request();
      if (odds(habits_.pauses))
        pause_ns_ = now() + (random_.below(2) + proclock::kLingerTicks) * kTickNs + random_.up_to_power(22);
    } else if (is_done()) {
      return false;
    } else {
      doing("event loop");
      the_machine.step(Machine::kHot, 'w', Site::here());
      the_machine.full_fence();
      the_machine.compared(&told_, told_.latest());
      if (told_.latest() == seen) the_machine.sleep(&told_, next_timer(), true);
      the_machine.full_fence();
    }
    if (odds(habits_.busy))
      be_busy((random_.one_in(4) ? proclock::kQuietTickNs : 0) +
              (random_.one_in(2) ? random_.up_to_power(20) : kMs * random_.up_to_power(11)));
    return true;
  }
  bool is_done() const {
    return rounds_left_ == 0 && waits_.empty() && holds_.empty() && report_.owed == 0 && report_.ready == 0;
  }
  void be_busy(uint64_t ns) {
    doing("busy");
    set_busy(true);
    the_machine.sleep(nullptr, now() + ns, true);
    set_busy(false);
  }
  void set_busy(bool busy) {
    busy_ = busy;
    the_machine.last_fault_ns = now();
  }
  uint64_t next_timer() const {
    uint64_t next_ns = std::min(serve_ns_, retry_ns_);
    if (rounds_left_ > 0 && (now() < pause_ns_ || waits_.empty())) next_ns = std::min(next_ns, pause_ns_);
    for (const Wait& wait : waits_) next_ns = std::min(next_ns, wait.deadline_ns);
    for (const Hold& hold : holds_) next_ns = std::min(next_ns, hold.until_ns);
    return next_ns;
  }

  // Ready.settle, Ready.drain
  void settle() {
    if (report_.ready != 0) drain();
  }
  void drain() {
    const Prompt prompt(*this);
    doing("drain");
    do {
      for (const uint32_t index : client_->take_ready()) {
        for (Wait& wait : waits_) {
          if (wait.index == static_cast<int32_t>(index)) {
            react(wait);
            break;
          }
        }
        if (listens_to(index)) look_for_theft(index);
      }
      forget_ended();
    } while (report_.ready != 0);
    if (report_.owed != 0) retry_later();
  }
  void retry_later() { retry_ns_ = std::min(retry_ns_, now() + kServeNs); }
  void serve_if_needed() {
    if (report_.unserved != 0) serve_ns_ = std::min(serve_ns_, now() + kServeNs);
  }

  void run_timers() {
    if (now() >= serve_ns_) {
      doing("serve");
      serve_ns_ = kForever;
      the_world.counts.served++;
      client_->serve();
      settle();
      if (!waits_.empty() || !listened_.empty()) serve_if_needed();
    }
    if (now() >= retry_ns_) {
      doing("retry");
      retry_ns_ = kForever;
      const uint32_t left = client_->settle_owed();
      bool unqueued = false;
      for (Wait& wait : waits_) {
        if (wait.index < 0 && !wait.ended) unqueued = enqueue(wait) || unqueued;
      }
      forget_ended();
      settle();
      if (left != 0 || unqueued) retry_later();
    }
    {
      const Prompt prompt(*this);
      for (Wait& wait : waits_) {
        if (!wait.ended && now() >= wait.deadline_ns) time_out(wait);
      }
      forget_ended();
    }
    for (size_t n = holds_.size(); n-- > 0;) {
      if (n < holds_.size() && now() >= holds_[n].until_ns) release(n);
    }
    settle();
  }
  void forget_ended() {
    waits_.erase(std::remove_if(waits_.begin(), waits_.end(), [](const Wait& wait) { return wait.ended; }),
                 waits_.end());
  }

  // ---- requests

  // False: it can not be opened now.
  bool open(int lock) {
    if (opened_[lock] >= 0) return true;
    doing("open");
    const std::string text = World::name(lock);
    uint32_t id = 0;
    proclock::OpenFailure failure;
    const Status status = client_->open_lock(World::space_of(lock), -1, name_of(text), &id, &failure);
    SIM_CHECK(ok(status) || status == Status::kSystem || status == Status::kStalled);
    if (ok(status)) opened_[lock] = id;
    return ok(status);
  }
  void close(int lock) {
    const auto is_unqueued = [&](const Wait& wait) { return wait.lock == lock && wait.index < 0; };
    if (opened_[lock] < 0 || std::any_of(waits_.begin(), waits_.end(), is_unqueued)) return;
    client_->close_lock(static_cast<uint32_t>(opened_[lock]));
    opened_[lock] = -1;
    settle();
  }

  void request() {
    const int space = static_cast<int>(random_.below(static_cast<uint32_t>(habits_.namespaces)));
    const int lock =
        space * kNamesEach + static_cast<int>(random_.below(static_cast<uint32_t>(habits_.names)));
    if (!open(lock)) return;
    const Mode mode = odds(habits_.exclusive) ? Mode::kExclusive : Mode::kShared;
    const uint32_t key = static_cast<uint32_t>(opened_[lock]) << Client::kKeyBits |
                         (mode == Mode::kExclusive ? kExclusive : 0) |
                         (odds(habits_.fair) ? Client::kKeyFair : 0);
    the_machine.begins();
    if (odds(habits_.steal)) {
      request_async({-1, lock, key | kExclusive, kForever, true, false});
      return;
    }
    doing("try");
    const int32_t tried = client_->try_acquire(key);
    if (tried >= 0) {
      granted(static_cast<uint32_t>(tried), lock, mode);
    } else if (tried == static_cast<int32_t>(Status::kBusy)) {
      refused(lock, key, mode);
    } else {
      SIM_CHECK(tried == static_cast<int32_t>(Status::kStalled));
    }
    if (odds(habits_.closes)) close(lock);
    settle();
  }
  void refused(int lock, uint32_t key, Mode mode) {
    settle();
    const bool times_out = odds(habits_.timeout);
    if (!odds(habits_.waits)) {
      the_world.counts.refused++;
      if (odds(habits_.looks)) {
        doing("look");
        SIM_CHECK(ok(client_->look(static_cast<uint32_t>(opened_[lock]))));
      }
    } else if (odds(habits_.blocks)) {
      // Who blocks while it holds something may wait for somebody who waits for that.
      const bool for_ever = holds_.empty() && !times_out;
      request_sync(lock, key, mode, for_ever ? kForever : deadline());
    } else {
      request_async({-1, lock, key, times_out ? deadline() : kForever, false, false});
    }
  }
  // Many at once.
  uint64_t deadline() {
    constexpr uint64_t kTogetherNs = 16 * kMs;
    return (now() + random_.up_to_power(28)) / kTogetherNs * kTogetherNs + kTogetherNs;
  }
  void request_async(Wait wait) {
    if (enqueue(wait)) retry_later();
    if (!wait.ended) waits_.push_back(wait);
    settle();
  }
  // Wait.enqueue: does it have to come again?
  bool enqueue(Wait& wait) {
    doing(wait.steals ? "steal" : "enqueue");
    Truth& truth = the_world.truths[wait.lock];
    if (wait.steals) {
      the_world.counts.steals++;
      truth.thieves.push_back(this);
    }
    const int32_t index = wait.steals ? client_->steal(wait.key) : client_->enqueue(wait.key, true);
    if (wait.steals) truth.thieves.erase(std::find(truth.thieves.begin(), truth.thieves.end(), this));
    if (index == static_cast<int32_t>(Status::kStalled)) return true;
    SIM_CHECK(index >= 0);
    if (!wait.steals && report_.granted == 0) {
      wait.index = index;
      serve_if_needed();
      return false;
    }
    wait.ended = true;
    granted(static_cast<uint32_t>(index), wait.lock, mode_of(wait.key));
    return false;
  }
  // Whatever has stopped inside of a latch: the event loop goes on. One call after the other does not wait for the same one.
  class Prompt {
   public:
    explicit Prompt(Loop& loop) : loop_(loop), begun_ns_(now()), patient_ns_(loop.patient_ns_) {}
    ~Prompt() {
      const uint64_t took_ns = now() - begun_ns_ - (loop_.patient_ns_ - patient_ns_);
      if (loop_.host_.stopped_ns < begun_ns_ && took_ns > kPromptNs)
        the_machine.fail("an event loop is blocked for too long");
    }
    Prompt(const Prompt&) = delete;
    Prompt& operator=(const Prompt&) = delete;

   private:
    Loop& loop_;
    const uint64_t begun_ns_;
    const uint64_t patient_ns_;
  };
  // Each stalled namespace costs a call's patience, once.
  static constexpr uint64_t kPromptNs = kNamespacesMax * Platform::latch_patience_ns + 4 * kMs;

  static Mode mode_of(uint32_t key) { return (key & kExclusive) != 0 ? Mode::kExclusive : Mode::kShared; }

  void react(Wait& wait) {
    if (wait.ended || wait.index < 0) return;
    doing("react");
    const Status status = client_->react(static_cast<uint32_t>(wait.index));
    if (status == Status::kAgain) return;
    SIM_CHECK(ok(status));
    wait.ended = true;
    granted(static_cast<uint32_t>(wait.index), wait.lock, mode_of(wait.key));
  }
  void time_out(Wait& wait) {
    react(wait);
    if (wait.ended) return;
    doing("withdraw");
    the_world.counts.timeouts++;
    wait.ended = true;
    if (wait.index >= 0) SIM_CHECK(ok(client_->withdraw(static_cast<uint32_t>(wait.index))));
  }
  // blockUntil of wait.ts
  void request_sync(int lock, uint32_t key, Mode mode, uint64_t deadline_ns) {
    doing("block");
    set_busy(true);
    int32_t index = client_->enqueue(key, false);
    while (index == static_cast<int32_t>(Status::kStalled) && now() < deadline_ns)
      index = client_->enqueue(key, false);
    if (index >= 0) {
      Status status = report_.granted != 0 ? Status::kOk : Status::kAgain;
      while (status == Status::kAgain && now() < deadline_ns) {
        status = client_->wait(static_cast<uint32_t>(index), static_cast<double>(deadline_ns - now()) / 1e6);
      }
      set_busy(false);
      if (ok(status)) {
        granted(static_cast<uint32_t>(index), lock, mode);
      } else {
        SIM_CHECK(status == Status::kAgain);
        the_world.counts.timeouts++;
        SIM_CHECK(ok(client_->withdraw(static_cast<uint32_t>(index))));
      }
    }
    set_busy(false);
    settle();
  }

  // ---- holds

  void granted(uint32_t index, int lock, Mode mode) {
    const uint64_t token = static_cast<uint64_t>(static_cast<uint32_t>(report_.token_high)) << 32 |
                           static_cast<uint32_t>(report_.token_low);
    the_world.granted(lock, *this, index, mode, token, report_.abandoned != 0);
    uint64_t rests_ns = odds(habits_.rests) ? random_.up_to_power(24) : 0;
    if (odds(habits_.slow_rests)) rests_ns = kMs * random_.up_to_power(8);
    if (odds(habits_.long_rests)) rests_ns = proclock::kQuietTickNs + random_.up_to_power(32);
    holds_.push_back({index, lock, mode, now() + rests_ns});
    doing("hold");
    if (odds(habits_.listens)) listen(index);
    if (mode == Mode::kExclusive && odds(habits_.clear)) clear(index, lock);
    if (mode == Mode::kExclusive && odds(habits_.downgrade)) downgrade(holds_.size() - 1);
  }
  void release(size_t n) {
    const Hold hold = holds_[n];
    holds_.erase(holds_.begin() + static_cast<ptrdiff_t>(n));
    doing("release");
    the_machine.begins();
    the_world.leaves(hold.lock, *this, hold.index);
    unlisten(hold.index);
    const Status status = client_->release(hold.index);
    SIM_CHECK(ok(status) || (status == Status::kStolen && the_world.counts.steals != 0));
    the_world.counts.robbed += status == Status::kStolen;
    settle();
  }
  template <class Call>
  Status change_mark(int lock, Call call) {
    Truth& truth = the_world.truths[lock];
    const Truth::Mark before = truth.abandoned;
    if (before != Truth::Mark::kNo) truth.abandoned = Truth::Mark::kEither;
    const uint64_t begun_ns = now();
    const Status status = call();
    patient_ns_ += now() - begun_ns;
    if (truth.abandoned == Truth::Mark::kEither && ok(status)) truth.abandoned = Truth::Mark::kNo;
    return status;
  }
  void clear(uint32_t index, int lock) {
    change_mark(lock, [&] { return client_->clear_abandoned(index); });
  }
  void downgrade(size_t n) {
    Hold& hold = holds_[n];
    const uint32_t index = hold.index;
    const int lock = hold.lock;
    the_world.hold_of(lock, *this, index)->changes = true;
    const Status status = change_mark(lock, [&] { return client_->downgrade(index); });
    Truth::Hold* truth = the_world.hold_of(lock, *this, index);
    truth->changes = false;
    if (!ok(status)) return;
    hold.mode = truth->mode = Mode::kShared;
    the_world.counts.downgrades++;
  }

  void listen(uint32_t index) {
    doing("listen");
    if (client_->listen(index) == Status::kStolen) {
      the_world.counts.told_stolen++;
      return;
    }
    listened_.push_back(index);
    serve_if_needed();
  }
  bool listens_to(uint32_t index) const {
    return std::find(listened_.begin(), listened_.end(), index) != listened_.end();
  }
  void unlisten(uint32_t index) {
    listened_.erase(std::remove(listened_.begin(), listened_.end(), index), listened_.end());
  }
  void look_for_theft(uint32_t index) {
    if (client_->check_hold(index) != Status::kStolen) return;
    the_world.counts.told_stolen++;
    unlisten(index);
  }

  // The thread ends, with all that it holds and waits for, and another one begins in its place.
  void end_thread() {
    doing("thread ends");
    the_machine.begins();
    the_world.counts.ends++;

    for (const Hold& hold : holds_) {
      Truth& truth = the_world.truths[hold.lock];
      if (hold.mode == Mode::kExclusive && !is_robbed(hold.index) && truth.abandoned != Truth::Mark::kYes)
        truth.abandoned = Truth::Mark::kEither;
    }
    struct Left {
      int lock;
      uint64_t looks;
    };
    std::vector<Left> left;
    for (const Hold& hold : holds_) {
      if (hold.mode == Mode::kExclusive && !is_robbed(hold.index))
        left.push_back({hold.lock, the_world.truths[hold.lock].looks});
      the_world.leaves(hold.lock, *this, hold.index);
    }
    const uint64_t begun_ns = now();
    client_.reset();
    // One deadline for all namespaces.
    if (host_.stopped_ns < begun_ns && now() - begun_ns > proclock::kEndPatienceNs + kPromptNs)
      the_machine.fail("a thread takes too long to end");
    for (const Left& one : left) {
      Truth& truth = the_world.truths[one.lock];
      // Who robs it at this moment has taken a lock that nobody left; who came since has looked.
      if (truth.looks == one.looks && truth.thieves.empty() && !truth.thief_died)
        truth.abandoned = Truth::Mark::kYes;
    }
    the_machine.last_fault_ns = now();
    holds_.clear();
    waits_.clear();
    listened_.clear();
    serve_ns_ = retry_ns_ = kForever;
    report_ = {};
    notified_ = false;
    begin();
  }

  const Habits& habits_;
  Random random_;
  int rounds_left_;
  proclock::Report report_ = {};
  std::optional<Client> client_;
  Platform::Atomic<uint32_t> told_{0};
  bool notified_ = false;
  int64_t opened_[kLocksMax];
  std::deque<Wait> waits_;
  std::vector<Hold> holds_;
  std::vector<uint32_t> listened_;
  uint64_t serve_ns_ = kForever;
  uint64_t retry_ns_ = kForever;
  uint64_t pause_ns_ = 0;
  uint64_t patient_ns_ = 0;  // spent in calls that are done now, or never
};

}  // namespace sim
