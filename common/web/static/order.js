// Reads the file of an order into the field beside it; without this script people paste it.
"use strict";

document.getElementById("choose").hidden = false;
document.getElementById("file").addEventListener("change", async (event) => {
  const file = event.target.files[0];
  if (file) document.getElementById("order").value = await file.text();
});
