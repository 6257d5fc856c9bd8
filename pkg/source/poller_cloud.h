/* The calls of a poller, made by pkg/huawei: signed, over kept connections, within the service's limit. Owns
 * the calls. Loop's thread. */
#pragma once

#include "base/list.h"
#include "huawei/cloud.h"
#include "source/poller.h"

struct poller_cloud {
        struct cloud_account *account; /* borrowed */
        struct task *wake;
        struct list busy;
};

/* The struct is the caller's, zeroed, and stays where it is until after poller_done. wake: the pipeline's. */
struct poller_port poller_cloud(struct poller_cloud *, struct cloud_account *, struct task *wake);
