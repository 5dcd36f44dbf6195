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
  int upgrade = 0;
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
    bool upgrading;
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
      be_busy((random_.one_in(4) ? (1 + random_.below(3)) * proclock::kQuietTickNs : 0) +
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
      Status status;
      const int32_t ready = client_->next_ready(&status);
      if (ready < 0) break;
      const uint32_t index = static_cast<uint32_t>(ready);
      // One of them: a wait that is granted may begin an upgrade at once.
      const auto wait = std::find_if(waits_.begin(), waits_.end(),
                                     [&](const Wait& one) { return !one.ended && one.index == ready; });
      const auto hold = std::find_if(holds_.begin(), holds_.end(),
                                     [&](const Hold& one) { return one.upgrading && one.index == index; });
      if (wait != waits_.end()) {
        tried(*wait, status);
      } else if (hold != holds_.end() && status != Status::kAgain) {
        upgrade_ended(static_cast<size_t>(hold - holds_.begin()), status);
      }
      if (listens_to(index)) look_for_theft(index);
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

  bool open(int lock);
  void close(int lock);

  void request();
  void refused(int lock, uint32_t key, Mode mode);
  // Many at once.
  uint64_t deadline() {
    constexpr uint64_t kTogetherNs = 16 * kMs;
    return (now() + random_.up_to_power(28)) / kTogetherNs * kTogetherNs + kTogetherNs;
  }
  void request_async(Wait wait);
  bool enqueue(Wait& wait);
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

  void tried(Wait& wait, Status status);
  void time_out(Wait& wait);
  void request_sync(int lock, uint32_t key, Mode mode, uint64_t deadline_ns);

  // ---- holds

  void granted(uint32_t index, int lock, Mode mode);
  void release(size_t n);
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
    change_mark(lock, [&] { return client_->finish(index, proclock::Finished::kRepair); });
  }
  void downgrade(size_t n);
  void upgrade(size_t n);
  void upgrade_ended(size_t n, Status status);

  void listen(uint32_t index);
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

  void end_thread();

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

#include "sim_runtime_requests.h"
