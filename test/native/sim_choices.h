// Who runs next on the simulated machine, when time passes, and who is stopped or killed.
#pragma once

#include "sim_machine.h"

namespace sim {

// ---- who runs

inline void Machine::enter(void* argument) {
  Actor& self = *static_cast<Actor*>(argument);
  self.fiber.entered();
  self.body(self, self.argument);
  machine().end_running();
}

inline void Machine::end_running() {
  Actor& self = *running_;
  self.state = State::kDone;
  Process& process = *self.process;
  if (--process.threads == 0) drop(process);
  leave();
}

inline void Machine::make_ready(Actor& actor) {
  actor.state = State::kReady;
  if (plan_.by_priority) event_at_ = 0;
}

// The next one to run; null if everybody is done or dead.
inline Actor* Machine::pick() {
  for (;;) {
    Actor* ready[kActorsMax];
    uint32_t count = 0;
    Actor* highest = nullptr;
    for (Actor& actor : actors()) {
      if (actor.state != State::kReady || is_stopped(actor)) continue;
      ready[count++] = &actor;
      if (highest == nullptr || actor.priority > highest->priority) highest = &actor;
    }
    if (count != 0) return plan_.by_priority ? highest : ready[decide(count)];
    if (!pass_time()) return nullptr;
  }
}

// Nobody can run: what the kernel still has to do, then the next deadline.
inline bool Machine::pass_time() {
  bool gone = false;
  for (Actor& actor : actors()) {
    if (actor.dies_at == kForever || actor.state == State::kDead || actor.state == State::kDone) continue;
    end_thread(actor);
    gone = true;
  }
  for (Process* process : processes_) {
    if (process->gone_at == kForever) continue;
    drop(*process);
    gone = true;
  }
  if (gone) return true;
  Actor* next = nullptr;
  uint64_t next_ns = kForever;
  bool quiet = true;
  bool anybody = false;
  for (Actor& actor : actors()) {
    const bool stopped = is_stopped(actor);
    if (actor.state != State::kAsleep && actor.state != State::kStopped && !stopped) continue;
    anybody = true;
    if (actor.state == State::kAsleep ? !actor.idle : !actor.outside) quiet = false;
    // A stopped process goes on first, whatever its threads wait for.
    const uint64_t until_ns = stopped ? actor.process->stopped_until_ns : actor.until_ns;
    if (until_ns < next_ns) {
      next_ns = until_ns;
      next = &actor;
    }
  }
  if (!anybody) return false;
  if (quiet) {
    observer_->quiet();
  } else {
    observer_->busy();
  }
  if (next == nullptr) fail("everybody sleeps for ever");
  const bool disturbs = plan_.disturb_one_in != 0 && deaths_left_ + stops_left_ != 0;
  // In a long rest rather than before one of many short ones.
  const uint32_t one_in = next_ns - now_ns > kLongRestNs ? 3 : plan_.disturb_one_in;
  if (disturbs && random.one_in(one_in) && disturb(next_ns)) return true;
  now_ns = std::max(now_ns, next_ns);
  if (plan_.timer_bits != 0) now_ns += random.up_to_power(plan_.timer_bits);
  settle_memory();
  if (next->process->stopped_until_ns != 0) {
    go_on(*next->process);
  } else {
    make_ready(*next);
  }
  if (plan_.timer_bits != 0) wake_sleepers();
  return true;
}

inline void Machine::wake_sleepers() {
  for (Actor& actor : actors()) {
    const bool sleeps = actor.state == State::kStopped || actor.state == State::kAsleep;
    if (sleeps && now_ns >= actor.until_ns) make_ready(actor);
  }
}

inline bool Machine::is_stopped(const Actor& actor) const {
  return actor.process->stopped_until_ns != 0 && actor.state != State::kDone && actor.state != State::kDead;
}

// Or it is killed without ever having gone on.
inline void Machine::go_on(Process& process) {
  process.stopped_until_ns = 0;
  last_fault_ns = now_ns;
  if (plan_.by_priority) event_at_ = 0;
  if (deaths_left_ != 0 && !process.dying && random.one_in(4)) kill_at_rest(process);
}

inline void Machine::kill_at_rest(Process& process) {
  if (--deaths_left_ == 0) death_at_ = kForever;
  deaths++;
  last_fault_ns = now_ns;
  process.dying = true;
  if (plan_.exec_one_in != 0) process.execs = random.one_in(plan_.exec_one_in);
  for (Actor& actor : actors()) {
    if (actor.process == &process && actor.state != State::kDone && actor.state != State::kDead)
      end_thread(actor);
  }
}

// Of a process: up to two seconds.
inline uint64_t Machine::long_stop_ns() {
  return plan_.shortest_stop_ns +
         (random.one_in(4) ? random.up_to_power(20) : 1000000 * random.up_to_power(11));
}

// While everybody sleeps, until `next_ns` at the latest, a process is killed or stopped. False: it is not there any more.
inline bool Machine::disturb(uint64_t next_ns) {
  Process& process = *processes_[random.below(static_cast<uint32_t>(processes_.size()))];
  if (process.dying || process.stopped_until_ns != 0 || process.threads == 0) return false;
  if (next_ns > now_ns && random.one_in(2)) now_ns += random.next() % (next_ns - now_ns);
  if (deaths_left_ != 0 && (stops_left_ == 0 || random.one_in(2))) {
    kill_at_rest(process);
  } else {
    if (--stops_left_ == 0) stop_at_ = kForever;
    stops++;
    last_fault_ns = process.stopped_ns = now_ns;

    process.stopped_until_ns = now_ns + long_stop_ns();
  }
  return true;
}

inline void Machine::count_step() {
  Actor& self = *running_;
  if (now_ns >= self.period_ends_ns) {
    self.period_ends_ns = now_ns + 50000000;
    steps_most = std::max(steps_most, self.steps);
    self.steps = 0;
  }
  if (++self.steps > plan_.steps_per_period) fail("a thread spins");
}

inline void Machine::take_thread_locals(Actor& from) {
  for (size_t n = 0; n < thread_locals.size(); n++) {
    if (thread_locals[n] != nullptr) memcpy(&from.thread_locals[n], thread_locals[n], sizeof(uint64_t));
  }
}

inline void Machine::give_thread_locals(const Actor& to) {
  for (size_t n = 0; n < thread_locals.size(); n++) {
    if (thread_locals[n] != nullptr) memcpy(thread_locals[n], &to.thread_locals[n], sizeof(uint64_t));
  }
}

// Away from the running actor; returns when it runs again.
inline void Machine::leave() {
  Actor* self = running_;
  Actor* next = pick();
  if (next == self) return;
  switches++;
  take_thread_locals(*self);
  running_ = next;
  static const Actor nobody;
  give_thread_locals(next == nullptr ? nobody : *next);
  Fiber& to = next == nullptr ? main_ : next->fiber;
  if (self->state == State::kDead || self->state == State::kDone) {
    fiber_leave_for_good(self->fiber, to);
  } else {
    fiber_switch(self->fiber, to);
  }
}

inline void Machine::plan_switch() {
  if (plan_.by_priority) {
    switch_at_ = plan_.priority_changes == 0 ? kForever : ticks_ + random.up_to_power(12);
  } else {
    switch_at_ = ticks_ + 1 + random.below(2 * plan_.switch_mean);
  }
}

inline void Machine::plan_death(uint32_t magnitude) {
  death_at_ = deaths_left_ == 0 || plan_.at_rest ? kForever : ticks_ + random.up_to_power(magnitude);
  in_latch_ = plan_.in_latch && random.one_in(2);
}

inline void Machine::plan_next() {
  event_at_ = std::min(switch_at_, std::min(death_at_, stop_at_));
  for (Actor& actor : actors()) event_at_ = std::min(event_at_, actor.dies_at);
  for (const Process* process : processes_) event_at_ = std::min(event_at_, process->gone_at);
  if (plan_.steps_per_period != 0) event_at_ = std::min(event_at_, ticks_ + kTimeTicks);
}

// Before a step of the running actor, when something is due.
inline void Machine::events() {
  Actor& self = *running_;
  for (Process* process : processes_) {
    if (ticks_ >= process->gone_at) drop(*process);
    if (process->stopped_until_ns != 0 && now_ns >= process->stopped_until_ns) go_on(*process);
  }
  if (ticks_ >= self.dies_at) {
    self.dies_at = kForever;
    end_thread(self);
    plan_next();
    return leave();
  }
  for (Actor& actor : actors()) {  // not running now, and dead before it runs again
    if (ticks_ < actor.dies_at) continue;
    actor.dies_at = kForever;
    if (actor.state != State::kDead && actor.state != State::kDone) end_thread(actor);
  }
  if (ticks_ >= death_at_ && (!in_latch_ || (observer_->is_inside(self) && random.one_in(16)))) {
    deaths_left_--;
    plan_death(random.one_in(2) ? 8 : plan_.magnitude);
    if (!self.process->dying) {
      plan_next();
      return kill_running();
    }
  }
  if (ticks_ >= stop_at_ && (!plan_.stops_in_latch || is_stopped_inside(self))) {
    stop_at_ = stops_left_ == 1 ? kForever : ticks_ + random.up_to_power(plan_.magnitude);
    return stop_running(plan_.whole_stops ? long_stop_ns() : random.up_to_power(27));
  }
  wake_sleepers();
  if (ticks_ >= switch_at_) {
    if (plan_.by_priority) {
      plan_.priority_changes--;
      self.priority = plan_.priority_changes;  // below all others
    }
    plan_switch();
    plan_next();
    return leave();
  }
  plan_next();
  if (plan_.by_priority) leave();  // maybe somebody more important was woken
}

// Anywhere inside of the latch, not where it was just entered.
inline bool Machine::is_stopped_inside(const Actor& actor) {
  return observer_->is_inside(actor) && (!plan_.whole_stops || random.one_in(16));
}

inline void Machine::stop_running(uint64_t ns) {
  Actor& self = *running_;
  stops++;
  stops_left_--;
  last_fault_ns = self.process->stopped_ns = now_ns;
  trace('S', Site::here());
  if (plan_.whole_stops) {
    self.process->stopped_until_ns = now_ns + ns;
  } else {
    self.state = State::kStopped;
    self.until_ns = now_ns + ns;
  }
  plan_next();
  leave();
}

// Before a step, when all schedules are enumerated: on, or another one, or dead.
inline void Machine::decide_step() {
  Actor& self = *running_;
  Actor* others[kActorsMax];
  uint32_t count = 0;
  if (preemptions_left != 0) {
    for (Actor& actor : actors()) {
      if (&actor != &self && actor.state == State::kReady) others[count++] = &actor;
    }
  }
  const bool may_die = kills_left != 0 && !self.process->dying && self.process->number == 1;
  const uint32_t choice = decide(1 + count + may_die);
  if (choice == 0) return;
  if (choice > count) {
    kills_left--;
    return kill_running();
  }
  preemptions_left--;
  switches++;
  running_ = others[choice - 1];
  fiber_switch(self.fiber, running_->fiber);
}

// ---- death

inline void Machine::end_thread(Actor& actor) {
  trace_for(actor, 'X', Site::here());
  observer_->dying(actor);
  actor.state = State::kDead;
  actor.dies_at = kForever;
  Process& process = *actor.process;
  if (--process.threads == 0) {
    process.gone_at = ticks_ + (decisions_ != nullptr ? 0 : random.below(16) * kHot);
    if (decisions_ != nullptr) drop(process);
    event_at_ = 0;
  }
}

inline void Machine::drop(Process& process) {
  process.gone_at = kForever;
  process.token_kept = process.open && !process.execs && plan_.keeps_token &&
                       observer_->is_entered(process) && random.one_in(2);
  process.open = false;
  gone++;
  observer_->gone(process);
  // What it stored has arrived long before the kernel was through with it.
  Clock all;
  for (Actor& actor : actors()) {
    if (actor.process == &process) all.join(actor.known);
  }
  for (Actor& actor : actors()) {
    if (actor.state == State::kDead || actor.state == State::kDone) continue;
    actor.known.join(all);
    if (actor.state == State::kAsleep && actor.idle && !plan_.blind) make_ready(actor);
  }
}

}  // namespace sim
