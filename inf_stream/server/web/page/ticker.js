// A worker that ticks: its timers keep their pace while the page is hidden, as it is while another window is watched.

let timer = 0;

onmessage = ({ data: intervalMs }) => {
  clearInterval(timer);
  if (intervalMs) timer = setInterval(() => postMessage(null), intervalMs);
};
