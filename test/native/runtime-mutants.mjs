// The mutants of the runtime, for mutants.mjs: what spaces, doorbells, the detector's ticks and clients rest on, and faults that
// earlier versions had. What finds each of those, when it is put back:
//
//   a death of which no pidfd tells (exec), or that      PIDFDS_ALONE, BLOCKS_WITHOUT_TICKS
//     only a blocked thread could have noticed
//   locks behind the first ones that are waited for      detector_test.cc, test/unseen-deaths.test.ts
//   no thread can be had: waits that never end           THREAD_ASSUMED, SERVES_NOTHING, UNSERVED_UNSAID, UNSERVED_LISTENER
//   a thread that spins                                  BLOCKS_IN_A_SPIN
//   a stalled namespace that holds up others, timeouts,  SERVES_PATIENTLY, OPENS_UNDER_MUTEX, EACH_CALL_WAITS; exits:
//     and exits                                            test/stalled.test.ts
//   a mark that is lost when a thread ends               END_RELEASES
//   a wake-up that is lost between two threads           BELL_READ_LATE, CONTROL_READ_LATE, KNOWN_LATE, NOTIFIED_STAYS,
//                                                          SLEEPS_BEFORE_IT_SAYS
//   work that a stall has kept somebody from             REACT_NOT_OWED, RELEASE_NOT_OWED, SETTLE_NOT_OWED, WITHDRAW_NOT_OWED
//   clocks of other time namespaces                      test/clocks.test.ts
//   descriptors, contents of the segment, other users,   not simulated: test/descriptor.test.ts, fuzz_test.cc,
//     room                                                 fuzz_concurrent_test.cc, test/segment.test.ts, test/many-names.test.ts

/** Those that are not hunted: they cost time that nobody has promised, or what they break is not simulated. */
export const RUNTIME_NOT_HUNTED = {
  ENDS_EACH_PATIENTLY:
    'needs two namespaces stalled for a second each: test/stalled.test.ts finds it, with three',
  ENDED_FORGOTTEN: 'costs time: the detector asks about the process as well',
  IDLE_UNCHECKED:
    'needs a wait to begin within some steps of a second, and a death after that that nobody else sees',
  QUIET_UNANNOUNCED: 'costs a second at most, as UNWATCHED_UNSEEN does',
  SLOW_UNCHECKED: 'costs a second at most: the next tick is slow',
  OWED_UNSEEN:
    'needs one that is busy for seconds after a stall, and no other that tries: stall_test.cc finds it',
  EVENTS_DROPPED: 'costs time: the detector asks about all of them as well',
  ENTERED_UNSAID: 'costs a tick: bell_test.cc finds it, which has none',
  STALLED_AGAIN_AT_ONCE: 'does not spin: a round sleeps in the latch of one of those that are stalled',
};

export const RUNTIME_EDITS = {
  'space.h': [
    ['|| has_unwatched(); }', '|| (has_unwatched() && !MUTANT(ENTERED_UNSAID)); }'],
    [
      'stirred_.store(true, std::memory_order_seq_cst); runtime_.attend();',
      'if (!MUTANT(STIRRED_UNSAID)) { stirred_.store(true, std::memory_order_seq_cst); runtime_.attend(); }',
    ],
  ],
  'runtime.h': [
    [
      'const Status status = (*space)->open(group, failure, opening);',
      `if (MUTANT(OPENS_UNDER_MUTEX)) mutex_.lock();  // of all namespaces
    const Status status = (*space)->open(group, failure, opening);
    if (MUTANT(OPENS_UNDER_MUTEX)) mutex_.unlock();`,
    ],
  ],
  'serve.h': [
    [
      'const Patience patience(now_ns + patience_ns);',
      'const Patience patience(now_ns + (MUTANT(SERVES_PATIENTLY) ? Arena<P>::kPatienceNs : patience_ns));',
    ],
    [
      'arena_->tick(&scan_, was_slow ? kQuietTickNs / kTickNs : 1);',
      'if (!MUTANT(PIDFDS_ALONE)) arena_->tick(&scan_, was_slow ? kQuietTickNs / kTickNs : 1);',
    ],
    ['look_at_waited();', 'if (!MUTANT(NOBODY_PASSED_OVER)) look_at_waited();'],
    ['return waits_begun_ == begun_seen_;', 'return MUTANT(IDLE_UNCHECKED) || waits_begun_ == begun_seen_;'],
    ['const bool slow = is_quiet(true);', 'const bool slow = MUTANT(SLOW_UNCHECKED) || is_quiet(true);'],
    [
      'if (announce) arena_->announce_quiet(entry.first);',
      'if (announce && !MUTANT(QUIET_UNANNOUNCED)) arena_->announce_quiet(entry.first);',
    ],
    [
      'if (!begun && (!happened || tick_ns_ == 0)) return;',
      'if (!begun && (!happened || tick_ns_ == 0 || MUTANT(STAYS_SLOW))) return;',
    ],
    [
      'if (!left.empty() || arena_->recover_dead(one.process, one.number) == Status::kStalled)',
      'if ((!left.empty() || arena_->recover_dead(one.process, one.number) == Status::kStalled) && !MUTANT(ENDED_FORGOTTEN))',
    ],
    [
      'runs_.store(P::start_thread(&Runtime::run, this), std::memory_order_release);',
      `runs_.store(P::start_thread(&Runtime::run, this) || MUTANT(THREAD_ASSUMED), std::memory_order_release);`,
    ],
    [
      'round(&sleeps);\n  return sleeps.size() == 1;',
      'if (!MUTANT(SERVES_NOTHING)) round(&sleeps);\n  return sleeps.size() == 1;',
    ],
    [
      'deadline_ns = std::min(deadline_ns, now + kStalledRetryNs);',
      'deadline_ns = std::min(deadline_ns, now + (MUTANT(STALLED_AGAIN_AT_ONCE) ? 0 : kStalledRetryNs));',
    ],
    [
      'deadline_ns = std::min(deadline_ns, space->next_tick_ns());',
      `deadline_ns = std::min(deadline_ns, space->next_tick_ns());
    if (MUTANT(BELL_READ_LATE)) sleeps->back().seen = bell->load(std::memory_order_acquire);`,
    ],
    [
      'sleeps->push_back(control);',
      `sleeps->push_back(control);
  if (MUTANT(CONTROL_READ_LATE)) sleeps->back().seen = control_.load(std::memory_order_acquire);`,
    ],
    [
      'if (found != spaces.end()) (*found)->watch_event(event.key.process, event.ended);',
      'if (found != spaces.end() && !MUTANT(EVENTS_DROPPED)) (*found)->watch_event(event.key.process, event.ended);',
    ],
  ],
  'client_locks.h': [
    [
      'space.arena().leave(hold.ref);\n    if (std::find(left',
      `if (MUTANT(END_RELEASES) && hold.state == State::kHeld) {
      space.arena().release(hold.ref);
      space.arena().unbind(hold.ref);
    } else {
      space.arena().leave(hold.ref);
    }
    if (std::find(left`,
    ],
    [
      'const Patience patience(P::monotonic_ns() + Arena<P>::kPatienceNs);',
      'const Patience patience(MUTANT(ENDS_EACH_PATIENTLY) ? 0 : P::monotonic_ns() + Arena<P>::kPatienceNs);',
    ],
    [
      'if (hold.state == State::kWaitingAsync || hold.upgrading) notify_ready(index);\n    return Status::kOk;',
      `if ((hold.state == State::kWaitingAsync || hold.upgrading) && !MUTANT(REACT_NOT_REPEATED)) notify_ready(index);
    return Status::kOk;`,
    ],
  ],
  'client_holds.h': [
    [
      'end_hold(index, *hold, status == Status::kStalled ? kReleaseDuty : 0);',
      'end_hold(index, *hold, status == Status::kStalled && !MUTANT(RELEASE_NOT_OWED) ? kReleaseDuty : 0);',
    ],
    [
      'report_->unserved = !runtime_.attend();\n  // After it was made known',
      'report_->unserved = !runtime_.attend() && !MUTANT(UNSERVED_LISTENER);\n  // After it was made known',
    ],
    [
      'space.add_async(hold->ref.slot_index, this, index);\n  space.keep_listening();',
      'space.add_async(hold->ref.slot_index, this, index);\n  if (!MUTANT(LISTENS_NOT)) space.keep_listening();',
    ],
  ],
  'client_waits.h': [
    [
      'notified_ = false;\n    report_->ready =',
      'if (!MUTANT(NOTIFIED_STAYS)) notified_ = false;\n    report_->ready =',
    ],
    [
      'space.add_async(hold.ref.slot_index, this, index);\n  if (space.is_to_be_told()',
      `if (!MUTANT(KNOWN_LATE)) space.add_async(hold.ref.slot_index, this, index);
  if (MUTANT(ATTENDS_NOT)) return;
  if (space.is_to_be_told()`,
    ],
    [
      'report_->unserved = !runtime_.attend(); }',
      'report_->unserved = !runtime_.attend() && !MUTANT(UNSERVED_UNSAID); }',
    ],
    [
      'if (status == Status::kStalled) {  // not queued',
      `if (MUTANT(KNOWN_LATE) && async) lock->space->add_async(hold.ref.slot_index, this, index);
  if (status == Status::kStalled) {  // not queued`,
    ],
    [
      'const Patience patience(patience_ns());\n    status = take_idle(',
      'const Patience patience(MUTANT(BLOCKS_IN_A_SPIN) ? Patience::until_ns() : patience_ns());\n    status = take_idle(',
    ],
    [
      'if (status == Status::kStalled) {\n    owe(index, kReact);',
      'if (status == Status::kStalled) {\n    if (!MUTANT(REACT_NOT_OWED)) owe(index, kReact);',
    ],
    [
      'if (settled == Status::kStalled) owe(index, kSettleGrant);',
      'if (settled == Status::kStalled && !MUTANT(SETTLE_NOT_OWED)) owe(index, kSettleGrant);',
    ],
    [
      'if (ok(hold->lock->space->check_now(P::wall_ms()))) tick(*hold->lock);',
      'if (ok(hold->lock->space->check_now(P::wall_ms())) && !MUTANT(BLOCKS_WITHOUT_TICKS)) tick(*hold->lock);',
    ],
    [
      'end_hold(index, *hold, status == Status::kStalled ? kWithdraw : 0);',
      'end_hold(index, *hold, status == Status::kStalled && !MUTANT(WITHDRAW_NOT_OWED) ? kWithdraw : 0);',
    ],
  ],
  'client_upgrades.h': [
    ['begin_wait(index, hold);', 'if (!MUTANT(UPGRADE_UNTOLD)) begin_wait(index, hold);'],
  ],
  'detect.h': [['return is_owed;', 'return is_owed && !MUTANT(OWED_UNSEEN);']],
  'latch.h': [
    [
      'stalled_until_ns_.store(now + P::latch_pause_ns, std::memory_order_relaxed);',
      'if (!MUTANT(EACH_CALL_WAITS)) stalled_until_ns_.store(now + P::latch_pause_ns, std::memory_order_relaxed);',
    ],
  ],
};
