"use strict";
(() => {
  const stage = document.querySelector(".stage");
  const slider = stage.querySelector("input");
  const layers = [...stage.querySelectorAll(".layer")];
  const tags = ["left", "right"].map((side) => stage.querySelector(".tag." + side));
  const move = () => stage.style.setProperty("--at", slider.value + "%");
  const show = (names) => {
    for (const layer of layers) {
      layer.classList.toggle("left", layer.dataset.view === names[0]);
      layer.classList.toggle("right", layer.dataset.view === names[1]);
    }
    const titles = names.map((name) => layers.find((one) => one.dataset.view === name).dataset.title);
    tags.forEach((tag, i) => { tag.textContent = titles[i]; });
    slider.setAttribute("aria-label", "Divider between " + titles[0] + " (left) and " + titles[1] + " (right)");
  };
  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    slider.value = 100 * (event.clientX - box.left) / box.width;
    move();
  };
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    stage.setPointerCapture(event.pointerId);
    slider.focus({ preventScroll: true });
    follow(event);
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) follow(event);
  });
  slider.addEventListener("input", move);
  for (const choice of document.querySelectorAll("input[name=pair]")) {
    choice.addEventListener("change", () => show(choice.value.split(" ")));
    if (choice.checked) show(choice.value.split(" "));
  }
  move();
})();
