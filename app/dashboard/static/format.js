// Numbers, times and states in words.

const NUMBER = new Intl.NumberFormat("en");
const CLOCK = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const MOMENT = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

export const number = (value) => NUMBER.format(value);
export const clock = (epoch) => CLOCK.format(new Date(epoch * 1000));
export const moment = (epoch) => MOMENT.format(new Date(epoch * 1000));

export function counted(count, one, many) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

// How long ago, in the largest unit that fits.
export function age(epoch, now = Date.now() / 1000) {
  if (epoch === null) return "";
  const seconds = Math.max(0, Math.floor(now - epoch));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

// Of a pool, the worst first.
export const POOL_STATES = {
  stalled: { label: "Stalled", shape: "square", tone: "bad" },
  failing: { label: "Failing", shape: "triangle", tone: "bad" },
  filling: { label: "Filling", shape: "half", tone: "busy" },
  deleting: { label: "Deleting", shape: "dash", tone: "quiet" },
  ready: { label: "Ready", shape: "disc", tone: "good" },
};

export const AGENT_STATES = {
  lost: { label: "Lost", shape: "square", tone: "bad" },
  unknown: { label: "Unknown", shape: "triangle", tone: "bad" },
  pending: { label: "Pending", shape: "half", tone: "busy" },
  terminating: { label: "Terminating", shape: "dash", tone: "quiet" },
  finished: { label: "Finished", shape: "dash", tone: "quiet" },
  running: { label: "Running", shape: "disc", tone: "work" },
  idle: { label: "Idle", shape: "ring", tone: "good" },
};

export const SESSION_STATES = {
  stale: { label: "Stale", shape: "square", tone: "bad" },
  queued: { label: "Queued", shape: "half", tone: "busy" },
  starting: { label: "Starting", shape: "half", tone: "busy" },
  ending: { label: "Ending", shape: "dash", tone: "quiet" },
  running: { label: "Running", shape: "disc", tone: "work" },
};

export const rank = (states, state) => Object.keys(states).indexOf(state);
