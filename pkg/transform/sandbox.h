/* The walls around a transform's child: limits that it can't lift, and a filter of system calls that it can't
 * leave. Changes the calling process for good; called once, before anything of a user is looked at. */
#pragma once

#include "base/error.h"

/* Sanitizers reserve terabytes of addresses at start, which no limit on them survives. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANDBOX_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANDBOX_SANITIZED 1
#endif
#endif
#ifndef SANDBOX_SANITIZED
#define SANDBOX_SANITIZED 0
#endif

enum { SANDBOX_STACK = 8 << 20 };
/* Before the filter: dies with its parent, no core, no new privileges, no files, no processes, memory at most
 * above what it has now. */
int sandbox_limit(size_t memory, struct error *) MUST_CHECK;
/* From here on: reading and writing of one descriptor, memory that is not executable, time, the end. Asking
 * for a file finds none; anything else kills the process (SIGSYS). */
int sandbox_enter(int fd, struct error *) MUST_CHECK;
