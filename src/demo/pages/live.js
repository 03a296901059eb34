"use strict";
const show = (id, text) => { document.getElementById(id).textContent = text; };

const events = new EventSource("/events");
events.onmessage = (event) => show("count", event.data);

let socket;
function connect() {
  socket = new WebSocket((location.protocol === "https:" ? "wss://" : "ws://") + location.host + "/ws");
  socket.onopen = () => { show("socket", "connected"); socket.send("hello from the browser"); };
  socket.onmessage = (event) => {
    const heard = document.getElementById("heard");
    heard.textContent = (heard.textContent + event.data + "\n").slice(-2000);
  };
  socket.onclose = () => { show("socket", "disconnected"); setTimeout(connect, 2000); };
}
connect();

document.getElementById("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = document.getElementById("words");
  if (words.value && socket.readyState === WebSocket.OPEN) {
    socket.send(words.value);
    words.value = "";
  }
});
