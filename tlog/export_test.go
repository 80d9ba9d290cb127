package tlog

// For tests in package tlog_test, which may import logtest.
var Retry = retry
