/* The latch of latch.h: the namespace's short internal lock as one word of ours.
 *
 * Why it holds. Owner and phase are one word, so no death comes between them: whoever dies inside leaves its number and
 * what it had to do in the word. The number is drawn once and never again, and its byte is locked before its owner can
 * enter. So "the byte of this number is not locked" means "this owner is dead, for ever", and a CAS that names the
 * value about which it was asked robs nobody else. A sleeper is remembered by the bit WAITERS, which is set by a CAS on
 * a word that has an owner. The release takes it away in the same step that frees the word, and wakes one; whoever was
 * woken, and gets the latch, sets it again, since others may sleep. What no bit remembers (a waker that dies before it
 * wakes) the deadline of the sleep finds.
 *
 * Two ways to name the owner:
 *   numbers     (default) each process draws a number that is never used again and locks the byte of that number. The
 *               word is {number, phase, waiters bit}.
 *   -DINDEXED   a byte per process entry, used again and again. The word is {generation, index, phase, waiters bit}; a
 *               newcomer claims a free entry by its byte (C1 to C3), or uses the reserved index. This is the way that
 *               was not taken, and the runs with -DINDEXED -DSTOPS=1 say why: a newcomer that stops between its lock of
 *               a byte and its second look makes a dead owner look alive for as long as it stands still.
 *
 * NP bodies acquire, work, release, for ever (OPS=0) or OPS times. Fate kills processes at any step, KILLS times in
 * all, and stops them at any step, STOPS times, for ever or for a while. A killed one comes again as a newcomer.
 * THREADS: bodies 0 and 1 are two threads of one process. They take a mutex of their own before L1, and have it in every
 * step but L4, until they are through with L10 or an error: so who finds the latch called by its own number while it has
 * the mutex takes it for nonsense, and robs it (L6). Without STOPS any body may still be slow for as long as it likes.
 *
 * BLINDS: so many processes can not ask any more, since the descriptor is not theirs, say. Such a one takes no turn
 * (L5): it would learn nothing, and the others would believe that somebody has just asked. One that can ask is always
 * left.
 *
 * Labels: N1, N2 the name; L1 the fast path; L2 to L4 look, bit, sleep; L5, L6 turn and question; L7 theft; L8 rebuild;
 * L9, L10 release and wake.
 *
 * Abstracted, and why that is sound:
 *   memory orders   sequential consistency. The latch is one word, so its own accesses have one order anyway; what else
 *                   is read (the counter of questions) is a hint. That the content is seen is L9's release and L1's,
 *                   L2's and L7's acquire, and the kernel's lock around the byte of the dead: no model shows these.
 *   a CAS that fails     leads back to the look. So a look and the CAS of what was looked at are one step where nothing
 *                   lies between them. Where something does (L4: the sleep; L6 and L7: the question), the value is
 *                   kept and compared.
 *   spinning        is looking again.
 *   the deadline    may pass at any moment of a sleep (NO_DEADLINE: never). So it makes no difference how long a period
 *                   is, and that it goes on to double when the owner changes. SPURIOUS: so many sleepers come back
 *                   without a wake all the same, as after a signal or at the deadline of their own patience.
 *   the mutex       of a process with one thread is free whenever it wants it, and is not there. That a thread which
 *                   sleeps in L4 leaves it to the other is in the steps, and no claim asks for it: without it the other
 *                   one would be late, and nothing else.
 *   futex_wait      compares owner, phase and waiters bit (the low half), and queues, in one step, as the kernel does.
 *                   A wake takes any sleeper.
 *   N2              finds its byte free: nobody else draws the number, and foreign content only costs another draw.
 *   the attach      lock is not here (prune.pml): nobody initialises the segment anew beside a live process.
 *   the end         of a process that leaves is not here: its byte goes when no thread of it can enter any more.
 *   the content     is good, or half done by an owner that died (owed). A rebuild is two steps; it may be given up
 *                   (GIVE_UP) or find the content impossible (FAULTS), and so may an owner at work (FAULTS).
 *   the turn        to ask (TURNS) is counted modulo 3: more often it may seem that nobody has asked, not less often.
 *
 * Claims. exclusion: one inside, among those that live. rebuild: a rebuild runs exactly if an owner died inside, before
 * anybody uses the content, and nobody uses content that is corrupt. names: no two live processes of one name.
 * seen_alive: no dead owner is seen alive because another has its name, or its byte and does not go on. No invalid end
 * state with NO_DEADLINE: no wake-up is lost. LIVENESS (non-progress cycles under weak fairness): unless the owner is
 * alive and stopped, somebody gets the latch again and again; with OPS, where the others end, everybody does. There is
 * no claim of fairness among those that wait: a hold is microseconds.
 *
 * Expected errors without a mutant (runs.json): a death needs the deadline (NO_DEADLINE with KILLS), a generation that
 * comes round robs a later owner (WRAP), and the stopped newcomer of INDEXED.
 */
#ifndef NP
#define NP 3
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef STOPS
#define STOPS 0
#endif
#ifndef OPS
#define OPS 0            /* 0: for ever */
#endif
#ifndef BLINDS
#define BLINDS 0
#endif
#ifndef SPURIOUS
#define SPURIOUS 0
#endif

#ifdef THREADS           /* bodies 0 and 1 are threads of process 0 */
#define NPROC (NP - 1)
#define PROC(b) ((b) < 2 -> 0 : (b) - 1)
#else
#define NPROC NP
#define PROC(b) (b)
#endif

#define CLEAN 0
#define DIRTY 1
#define CORRUPT 2
#define FREE 0
#define LIVE 1

#ifdef INDEXED
#ifndef ENTRIES
#define ENTRIES 2
#endif
#ifndef GENS
#define GENS 4
#endif
#define RESERVED (ENTRIES + 1)
#define NAMES (ENTRIES + 2)
#else
#define NAMES (NP + KILLS + 1)
#endif

/* the latch, one word */
byte own = 0;            /* the owner's name; 0: free */
byte phase = CLEAN;
bit w = 0;               /* somebody may sleep */
#ifdef TURNS
byte asked = 0;          /* beside it: how often its owner was asked about; modulo 3 here */
#endif
#ifdef INDEXED
byte gen = 0;
byte st[NAMES];          /* process entries */
#else
byte last = 0;           /* the number that was given out last */
#endif
byte tok[NAMES];         /* which process has locked the byte of this name, plus 1; the kernel's */
bit sleeps[NP];          /* in futex_wait; the kernel's */

/* processes */
byte name[NPROC];        /* 0: none yet */
bit dead[NPROC];
bit stopped[NPROC];
#ifdef THREADS
bit mutex = 0;           /* of process 0 */
#endif
#if BLINDS > 0
bit blind[NPROC];        /* can not ask about others */
byte blinds = 0;
#define BLIND blind[p]
#else
#define BLIND 0
#endif

/* What the checker knows. */
byte in = 0;             /* the body that is inside, plus 1 */
bit owed = 0;            /* an owner died inside, and it is not rebuilt */
byte kills = 0, stops = 0;
#if SPURIOUS > 0
byte spurious = 0;
#endif
#ifdef GIVE_UP
bit gave_up = 0;
#endif

hidden byte exclusion, names, seen_alive, rebuild;

#define SAME (own == vo && phase == vp && w == vw SAME_GEN)
#if defined(INDEXED) && !defined(MUTANT_NO_GENERATION)
#define SAME_GEN && gen == vg
#else
#define SAME_GEN
#endif
#ifdef INDEXED
#define LOOK_GEN vg = gen;
#ifdef WRAP
#define NEXT_GEN gen = (gen + 1) % WRAP;
#else
#define NEXT_GEN gen++;
#endif
#define FORGET_WORD vo = 0; vp = 0; vw = 0; vg = 0;
#ifdef WRAP
#define MORE 1
#else
#define MORE (gen < GENS)
#endif
#else
#define LOOK_GEN
#define NEXT_GEN
#define FORGET_WORD vo = 0; vp = 0; vw = 0;
#define MORE 1
#endif
#ifdef TURNS
#define NO_TURN va = 0;
#else
#define NO_TURN
#endif
#define FORGET FORGET_WORD NO_TURN
#define READ vo = own; vp = phase; vw = w; LOOK_GEN
#define TAKE own = name[p]; NEXT_GEN assert(exclusion || in == 0); in = me + 1; FORGET
#define NAMED(q) (q != p && !dead[q] && name[q] == name[p])
#if NPROC == 1
#define ANY(f) (f(0))
#elif NPROC == 2
#define ANY(f) (f(0) || f(1))
#else
#define ANY(f) (f(0) || f(1) || f(2))
#endif

/* The mutex of the own process. */
#if defined(THREADS) && !defined(MUTANT_NO_MUTEX)
#define MAY_LOCK (p != 0 || !mutex)
#define LOCK if :: p == 0 -> mutex = 1 :: else fi;
#define UNLOCK if :: p == 0 -> mutex = 0 :: else fi;
#else
#define MAY_LOCK true
#define LOCK
#define UNLOCK
#endif
#ifdef MUTANT_NOT_RETAKEN
#define MAY_RELOCK true
#define RELOCK
#else
#define MAY_RELOCK MAY_LOCK
#define RELOCK LOCK
#endif

inline wake_one() {
  if
  :: sleeps[0] -> sleeps[0] = 0
  :: sleeps[1] -> sleeps[1] = 0
#if NP > 2
  :: sleeps[2] -> sleeps[2] = 0
  :: !sleeps[0] && !sleeps[1] && !sleeps[2]
#else
  :: !sleeps[0] && !sleeps[1]
#endif
  fi
}

inline wake_all() {
  sleeps[0] = 0; sleeps[1] = 0;
#if NP > 2
  sleeps[2] = 0
#endif
}

#define RUNS !stopped[PROC(_pid - 1)]

proctype B(byte me; byte p) provided (RUNS) {
  byte vo = 0, vp = 0, ops = 0, i = 0;
#ifdef INDEXED
  byte vg = 0;
#endif
  bit vw = 0, waited = 0, rebuilt = 0;
#ifdef TURNS
  byte va = 0;
#endif

start:
  {
#ifdef THREADS
    if
    :: me == 1 -> name[p] != 0; goto idle
    :: else
    fi;
#endif
#ifdef MUTANT_UNNAMED     /* enters the latch before its byte is locked */
#ifdef INDEXED
    name[p] = RESERVED;
#else
    atomic { last++; name[p] = last };
#endif
    goto idle;
#endif
#ifndef INDEXED
    /* N1: a number of its own; N2: its byte */
    atomic { last++; i = last };
    atomic { assert(names || tok[i] == 0); tok[i] = p + 1; name[p] = i; i = 0; assert(names || !ANY(NAMED)) };
#else
    skip;
claim:
    atomic { /* C1: an entry that is free */
      if
      :: st[1] == FREE -> i = 1
#if ENTRIES > 1
      :: st[2] == FREE -> i = 2
#endif
#ifdef MUTANT_CLAIM_DEAD
      :: st[1] == LIVE && tok[1] == 0 -> i = 1
#endif
      :: else -> i = RESERVED
      fi
    };
    atomic { /* C2: the byte decides */
      if
      :: tok[i] == 0 -> tok[i] = p + 1
      :: else -> i = 0; goto claim
      fi
    };
    atomic { /* C3: the second look */
      if
      :: i == RESERVED -> name[p] = i; i = 0
#if defined(MUTANT_NO_SECOND_LOOK) || defined(MUTANT_CLAIM_DEAD)
      :: i != RESERVED -> st[i] = LIVE; name[p] = i; i = 0
#else
      :: i != RESERVED && st[i] == FREE -> st[i] = LIVE; name[p] = i; i = 0
      :: i != RESERVED && st[i] != FREE -> tok[i] = 0; i = 0; goto claim
#endif
      fi;
      assert(names || !ANY(NAMED))
    };
#endif

idle:
    if
    :: MORE && (OPS == 0 || ops < OPS)
    :: !(MORE && (OPS == 0 || ops < OPS)) -> goto done
    fi;
#ifdef THREADS
    atomic { MAY_LOCK -> LOCK true };
#endif
    /* L1: the whole uncontended path */
    atomic {
      if
      :: own == 0 && phase == CLEAN && !w -> TAKE; goto inside
      :: else
      fi
    };
look: /* L2: free is taken, keeping the phase; L3: or else the waiters bit is set, on a word that has an owner */
#ifdef MUTANT_BIT_AFTER_LOOK
    atomic {
      if
      :: phase == CORRUPT -> goto refused
      :: phase != CORRUPT && own == 0 -> if :: waited -> w = 1 :: else fi; TAKE; goto inside
      :: phase != CORRUPT && own != 0
      fi
    };
    atomic { w = 1; READ };
#else
    atomic {
      if
      :: own == 0 && phase == CORRUPT -> goto refused
      :: own == 0 && phase != CORRUPT ->
#ifndef MUTANT_TAKES_WITHOUT_BIT
        if :: waited -> w = 1 :: else fi;
#endif
        TAKE; goto inside
      :: own != 0 -> w = 1; READ
      fi
    };
#endif
#if defined(INDEXED) && !defined(MUTANT_RESERVED_NOT_TAKEN_OVER)
    /* whoever has the reserved byte is not inside: an owner of that name is a predecessor, and dead */
    if
    :: vo == RESERVED && name[p] == RESERVED -> goto steal
    :: else
    fi;
#endif
#ifdef IMPATIENT
    if
    :: atomic { FORGET goto refused }
    :: true
    fi;
#endif
    /* L4: sleep, if the low half is what it was */
#ifdef TURNS
    va = asked;
#endif
#ifdef THREADS
    atomic { true -> UNLOCK true };
#endif
    atomic {
      if
      :: own == vo && phase == vp && w == vw -> sleeps[me] = 1
      :: else -> waited = 1; FORGET goto woken
      fi
    };
    if
    :: atomic { !sleeps[me] -> waited = 1; FORGET
#ifdef MUTANT_LEAVES_WOKEN
        if :: goto refused :: true fi;
#endif
        goto woken }
#if SPURIOUS > 0
    :: atomic { sleeps[me] && spurious < SPURIOUS -> spurious++; sleeps[me] = 0; waited = 1; FORGET goto woken }
#endif
#ifndef NO_DEADLINE
    :: atomic { sleeps[me] -> sleeps[me] = 0; waited = 1; FORGET_WORD
#ifdef THREADS
      };
      atomic { MAY_RELOCK -> RELOCK
#endif
        /* L5: the deadline passed */
        if
        :: own == 0 -> NO_TURN goto look
#ifdef INDEXED
        :: own != 0 && own == name[p] -> assert(seen_alive || in != 0); goto look
        :: own != 0 && own != name[p] -> READ
#else
        :: own != 0 -> READ
#endif
        fi
      }
#endif
    fi;
#if !defined(NO_DEADLINE) && !defined(INDEXED)
    /* called by our own number: nonsense, since no other thread of ours is in there. No turn, no question */
#ifdef THREADS
    if
    :: atomic { vo == name[p] -> NO_TURN goto steal }
    :: vo != name[p]
    fi;
#else
    assert(names || vo != name[p]);
#endif
#endif
#if BLINDS > 0 && !defined(MUTANT_BLIND_TAKES_TURNS)
    if
    :: atomic { BLIND -> FORGET goto look }
    :: !BLIND
    fi;
#endif
#ifdef TURNS
    /* one of those who sleep asks: whoever finds that nobody has asked since it went to sleep */
    atomic {
      if
#ifdef MUTANT_TURN_HELD
      :: asked == 0 -> asked = 1; va = 0
#else
      :: asked == va -> asked = (asked + 1) % 3; va = 0
#endif
      :: else ->
#ifdef LIVENESS
        if :: in != 0 && stopped[PROC(in - 1)] -> FORGET goto progress_stalled :: else fi;
#endif
        FORGET goto look
      fi
    };
#endif
#ifndef NO_DEADLINE
    /* L6: the kernel is asked about the owner that was seen */
    atomic {
#if defined(TURNS) && defined(MUTANT_TURN_HELD)
      asked = 0;
#endif
      if
      :: BLIND -> FORGET goto look
      :: !BLIND && tok[vo] != 0 ->
        /* no dead owner is seen alive because somebody who does not go on has its byte, or somebody has its name */
#ifdef INDEXED
        assert(seen_alive || !(SAME && in == 0 &&
          (stopped[tok[vo] - 1] || (vo != RESERVED && name[tok[vo] - 1] == vo))));
#else
        assert(seen_alive || !(SAME && in == 0));
#endif
#ifdef LIVENESS
        if :: stopped[tok[vo] - 1] -> FORGET goto progress_stalled :: else fi;
#endif
        FORGET goto look
      :: else
      fi
    };
#endif
steal: /* L7: exactly the word that was asked about */
    atomic {
      if
#ifdef MUTANT_STEAL_UNASKED
      :: own != 0 && own != name[p] ->
#else
      :: SAME ->
#endif
#ifndef MUTANT_STEAL_CLEAN
        phase = DIRTY;
#endif
        w = 1; TAKE
#if !defined(INDEXED) && !defined(MUTANT_STEAL_UNASKED)
      :: !SAME && own == vo -> READ goto steal /* dead is for ever: no second question */
      :: !SAME && own != vo -> FORGET goto look
#else
      :: else -> FORGET goto look
#endif
      fi
    };

inside:
#ifdef LIVENESS
progress_inside:
#endif
    if
    :: phase == CLEAN -> goto work
    :: phase == DIRTY
    fi;
    /* L8: rebuild. Each half is a step, so that it can die between them */
    assert(rebuild || owed);
#ifdef MUTANT_CLEARED_EARLY
    phase = CLEAN;
#endif
    if
    :: atomic { owed = 0; rebuilt = 1 }
#ifdef GIVE_UP
    :: atomic { !gave_up -> gave_up = 1; goto leave }  /* no memory, say */
#endif
#ifdef FAULTS
    :: atomic { rebuilt = 0; vp = CORRUPT; goto leave }
#endif
    fi;
work:
    assert(rebuild || !owed);
#ifdef INDEXED
    /* entries of the dead are recovered: asked, then freed */
    if
    :: st[1] == LIVE && tok[1] == 0 -> st[1] = FREE
    :: else
    fi;
#if ENTRIES > 1
    if
    :: st[2] == LIVE && tok[2] == 0 -> st[2] = FREE
    :: else
    fi;
#endif
#endif
#ifdef FAULTS
    if
    :: atomic { vp = CORRUPT; goto leave }
    :: true
    fi;
#endif
leave: /* L9: free, with what is left to be done; L10: one sleeper is woken. A corrupt latch wakes all, whatever the bit says */
#ifdef MUTANT_BIT_NOT_LOOKED_AT
    vw = w;
#endif
    atomic {
#ifndef MUTANT_BIT_NOT_LOOKED_AT
      vw = w;
#endif
      assert(exclusion || (own == name[p] && in == me + 1));
      own = 0; w = 0; in = 0;
      if :: vp == CORRUPT -> phase = CORRUPT :: vp != CORRUPT && rebuilt -> phase = CLEAN :: else fi;
      rebuilt = 0; waited = 0;
      if
#ifdef MUTANT_CORRUPT_LOOKS_AT_BIT
      :: !vw -> FORGET goto left
#else
      :: !vw && phase != CORRUPT -> FORGET goto left
#endif
      :: else
      fi
    };
    atomic {
#ifdef MUTANT_CORRUPT_WAKES_ONE
      wake_one();
#else
      if :: phase == CORRUPT -> wake_all() :: else -> wake_one() fi;
#endif
      FORGET
    };
left:
#ifdef THREADS
    atomic { true -> UNLOCK true };
#endif
#ifdef INDEXED
    /* a newcomer that got in by the reserved name looks for an entry now */
    if
    :: atomic { name[p] == RESERVED -> name[p] = 0; tok[RESERVED] = 0; goto claim }
    :: name[p] != RESERVED
    fi;
#endif
    atomic { if :: OPS > 0 -> ops++ :: else fi; goto idle };
woken: /* back from L4 */
#ifdef THREADS
    atomic { MAY_RELOCK -> RELOCK goto look };
#else
    goto look;
#endif
refused: /* an error for the caller: kStalled, or kCorrupt */
    atomic {
      UNLOCK
      waited = 0;
      if :: OPS > 0 -> ops++ :: else fi;
      if :: phase == CORRUPT -> goto done :: else -> goto idle fi
    };
#ifdef LIVENESS
progress_stalled: skip; goto look;
#endif
done:
    skip
  } unless { dead[p] };
#ifndef THREADS
  atomic { /* killed: a newcomer comes in its place */
    if
    :: dead[p] -> dead[p] = 0; name[p] = 0; FORGET waited = 0; rebuilt = 0; i = 0; ops = 0; goto start
    :: else
    fi
  }
#endif
}

inline kill_process(q) {
  kills++; dead[q] = 1; stopped[q] = 0;
#ifdef THREADS
  if :: q == 0 -> mutex = 0 :: else fi;
#endif
#if BLINDS > 0
  blind[q] = 0;
#endif
  k = 0;
  do :: k < NAMES -> if :: tok[k] == q + 1 -> tok[k] = 0 :: else fi; k++ :: else -> break od;
  k = 0;
  do
  :: k < NP ->
    if :: PROC(k) == q -> sleeps[k] = 0; if :: in == k + 1 -> in = 0; owed = 1 :: else fi :: else fi;
    k++
  :: else -> break
  od;
  k = 0
}

proctype Fate() {
  byte k = 0;
end:
  do
#if KILLS > 0
  :: atomic { kills < KILLS && !dead[0] -> kill_process(0) }
#if NPROC > 1
  :: atomic { kills < KILLS && !dead[1] -> kill_process(1) }
#endif
#if NPROC > 2
  :: atomic { kills < KILLS && !dead[2] -> kill_process(2) }
#endif
#endif
#if BLINDS > 0
  :: atomic { blinds < BLINDS && !dead[0] -> blinds++; blind[0] = 1 }
  :: atomic { blinds < BLINDS && !dead[1] -> blinds++; blind[1] = 1 }
#endif
#if STOPS > 0
  :: atomic { stops < STOPS && !dead[0] -> stops++; stopped[0] = 1 }
  :: stopped[0] -> stopped[0] = 0
#if NPROC > 1
  :: atomic { stops < STOPS && !dead[1] -> stops++; stopped[1] = 1 }
  :: stopped[1] -> stopped[1] = 0
#endif
#if NPROC > 2
  :: atomic { stops < STOPS && !dead[2] -> stops++; stopped[2] = 1 }
  :: stopped[2] -> stopped[2] = 0
#endif
#endif
  :: break
  od
}

init {
  atomic {
    byte b = 0;
    do :: b < NP -> run B(b, PROC(b)); b++ :: else -> break od;
    run Fate()
  }
}
