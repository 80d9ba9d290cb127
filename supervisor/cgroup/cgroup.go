// Package cgroup gives the service a control group of its own, below the one
// that systemd delegated to the unit (Delegate=yes), so that all that the
// service ever started can be named and killed at once.
//
// The kernel is trusted, and systemd's word that the group is ours to divide:
// the extended attribute "delegate" on the unit's group, or a group below it
// that is named as DelegateSubgroup= in our unit says. Without it nothing is
// touched. The service is not trusted: it cannot leave its group unless it runs
// as a user who may write the supervisor's groups (root, or the same user), and
// then the process group and the subreaper still find it.
//
// It keeps no files; its groups, named service-…, are in the unit's folder of
// the cgroup file system and gone with the service.
package cgroup

import "errors"

// ErrNone is returned where no group is delegated to this process.
var ErrNone = errors.New("no control group is delegated to upkeep")

// prefix is of the names of the service's groups.
const prefix = "service-"

// subgroup is upkeep's own group, as the unit says (DelegateSubgroup=).
const subgroup = "supervisor"
