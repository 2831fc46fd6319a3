// The browser loads ./uplot.js from the service; its types are the package's.
export { default } from "uplot";
