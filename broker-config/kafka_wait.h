/* librdkafka 2.0.2 sleeps until times of the wall clock (C11's cnd_timedwait knows no other). Set back by
 * an hour, its main thread slept for that hour where nothing else woke it: no heartbeats, and the group gave
 * the partitions away. So genq has a cnd_timedwait of its own, which librdkafka finds before libc's: it
 * sleeps for as long as it is until then, by the monotonic clock. */
#pragma once

/* Does nothing: who calls it is linked with this file. */
void kafka_wait_link(void);
